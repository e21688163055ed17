//! Collects the routing of a running model into a [`Trace`].

use std::collections::BTreeSet;

use super::trace::{Phase, Trace};

/// A recording stops growing here; that is hours of decoding.
const MAX_BYTES: usize = 1 << 29;

/// What the layers of one pass selected, in the order in which they were computed.
#[derive(Debug)]
struct Pass {
    phase: Phase,
    /// Layer and its ids, token by token.
    layers: Vec<(u32, Vec<u16>)>,
}

/// A recording that is under way.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    passes: Vec<Pass>,
    experts_per_token: usize,
    bytes: usize,
}

impl Recorder {
    /// Adds what the tokens of a batch selected in a layer. Layers come in the order of their numbers; one that is not
    /// behind the last begins the next pass.
    pub(super) fn push(&mut self, layer: u32, phase: Phase, experts_per_token: usize, ids: &[u32]) {
        if self.bytes > MAX_BYTES || experts_per_token == 0 {
            return;
        }
        self.experts_per_token = experts_per_token;
        let next = self
            .passes
            .last()
            .and_then(|pass| pass.layers.last())
            .is_none_or(|(last, _)| *last >= layer);
        if next {
            self.passes.push(Pass {
                phase,
                layers: Vec::new(),
            });
        }
        let ids: Vec<u16> = ids.iter().filter_map(|id| u16::try_from(*id).ok()).collect();
        self.bytes += 2 * ids.len() + 32;
        if let Some(pass) = self.passes.last_mut() {
            pass.layers.push((layer, ids));
        }
    }

    /// The trace; `None` if nothing was recorded. The last layer of a prompt computes only tokens whose results are wanted:
    /// the others are absent there.
    pub(super) fn finish(self, experts: u32) -> Option<Trace> {
        let layers: BTreeSet<u32> = self
            .passes
            .iter()
            .flat_map(|pass| pass.layers.iter().map(|(layer, _)| *layer))
            .collect();
        let layers: Vec<u32> = layers.into_iter().collect();
        let mut trace = Trace::new(layers.clone(), experts, u32::try_from(self.experts_per_token).ok()?).ok()?;
        let mut row = Vec::new();
        for pass in &self.passes {
            let tokens = |ids: &[u16]| ids.len() / self.experts_per_token;
            let count = pass.layers.iter().map(|(_, ids)| tokens(ids)).max().unwrap_or(0);
            for token in 0..count {
                row.clear();
                for layer in &layers {
                    let ids = pass.layers.iter().find(|(number, _)| number == layer);
                    let ids = ids.map_or(&[][..], |(_, ids)| ids);
                    // The tokens whose results are wanted stand last.
                    match (token + tokens(ids)).checked_sub(count) {
                        Some(at) => {
                            row.extend_from_slice(&ids[at * self.experts_per_token..(at + 1) * self.experts_per_token])
                        }
                        None => row.extend(std::iter::repeat_n(Trace::ABSENT, self.experts_per_token)),
                    }
                }
                trace.push(pass.phase, &row).ok()?;
            }
        }
        Some(trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_become_tokens() {
        let mut recorder = Recorder::default();
        recorder.push(1, Phase::Prefill, 2, &[0, 1, 2, 3, 4, 5]);
        recorder.push(3, Phase::Prefill, 2, &[6, 7]);
        recorder.push(1, Phase::Decode, 2, &[1, 2]);
        recorder.push(3, Phase::Decode, 2, &[3, 4]);
        let trace = recorder.finish(8).unwrap();
        assert_eq!(trace.layers(), [1, 3]);
        let phases = [Phase::Prefill, Phase::Prefill, Phase::Prefill, Phase::Decode];
        assert_eq!(trace.phases(), phases);
        assert_eq!((trace.selection(1, 0), trace.selection(1, 1)), (&[2, 3][..], &[][..]));
        assert_eq!(
            (trace.selection(2, 0), trace.selection(2, 1)),
            (&[4, 5][..], &[6, 7][..])
        );
        assert!(Recorder::default().finish(8).is_none());
    }
}
