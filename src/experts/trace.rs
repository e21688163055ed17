//! Recorded routing: which experts each token selected in each layer.
//!
//! The file, little-endian: magic (8 bytes), version (u32), layers (u32), experts per layer (u32), experts per token and
//! layer (u32), the numbers of the layers in the model (u32 each), and then one record per token: a byte that says whether
//! it was part of a prompt (0) or decoded (1), and its experts (u16 each, 0xffff for those of a layer that did not compute
//! the token), layer by layer. The records go to the end of the file, so a recording that was cut short loses at most its
//! last one.

use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"HRTHRTRC";
const VERSION: u32 = 1;
/// More layers than any model has.
const MAX_LAYERS: u32 = 1024;
/// Experts are written as u16, of which one number is [`Trace::ABSENT`].
const MAX_EXPERTS: u32 = (1 << 16) - 1;

/// Whether a token was part of a prompt or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Prefill,
    Decode,
}

/// Why a trace was not read or recorded.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("cannot read or write the trace: {0}")]
    Io(#[from] io::Error),
    #[error("the file is no routing trace of this version")]
    Foreign,
    #[error("the trace says {0}")]
    Geometry(String),
    #[error("token {token} of the trace {problem}")]
    Token { token: usize, problem: &'static str },
    #[error("the trace is longer than the {limit} bytes that may be read")]
    TooLong { limit: u64 },
}

/// Routing of a sequence of tokens, in the order in which they were computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    layers: Vec<u32>,
    experts: u32,
    experts_per_token: u32,
    phases: Vec<Phase>,
    /// [token, layer, experts_per_token]
    ids: Vec<u16>,
}

impl Trace {
    /// In the place of each expert of a layer that did not compute a token.
    pub const ABSENT: u16 = u16::MAX;

    /// An empty trace. `layers` are the numbers of the layers with experts, `experts` how many each has, and `experts_per_token` how
    /// many of them a token selects.
    ///
    /// # Errors
    /// When there are no or too many layers or experts, or more per token than there are.
    pub fn new(layers: Vec<u32>, experts: u32, experts_per_token: u32) -> Result<Self, TraceError> {
        let known = u32::try_from(layers.len()).is_ok_and(|count| (1..=MAX_LAYERS).contains(&count));
        if !known || !(1..=MAX_EXPERTS).contains(&experts) || !(1..=experts).contains(&experts_per_token) {
            let layers = layers.len();
            let geometry = format!("{layers} layers, {experts} experts, {experts_per_token} per token");
            return Err(TraceError::Geometry(geometry));
        }
        Ok(Self {
            layers,
            experts,
            experts_per_token,
            phases: Vec::new(),
            ids: Vec::new(),
        })
    }

    /// Numbers of the recorded layers in the model.
    #[must_use]
    pub fn layers(&self) -> &[u32] {
        &self.layers
    }

    /// Experts per layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts as usize
    }

    /// Experts that a token selects in a layer.
    #[must_use]
    pub fn experts_per_token(&self) -> usize {
        self.experts_per_token as usize
    }

    /// One entry per token.
    #[must_use]
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// What a token selected in a layer, counted among the recorded ones; empty if there is no such, or the layer did not
    /// compute this token.
    #[must_use]
    pub fn selection(&self, token: usize, layer: usize) -> &[u16] {
        let (layers, experts_per_token) = (self.layers.len(), self.experts_per_token());
        if layer >= layers {
            return &[];
        }
        let start = token
            .checked_mul(layers)
            .and_then(|row| (row + layer).checked_mul(experts_per_token));
        let range = start.and_then(|start| Some(start..start.checked_add(experts_per_token)?));
        let ids = range.and_then(|range| self.ids.get(range)).unwrap_or_default();
        if ids.first() == Some(&Self::ABSENT) { &[] } else { ids }
    }

    /// Adds a token; `ids` are its experts layer by layer.
    ///
    /// # Errors
    /// When their number is not layers x experts per token, or one of them is unknown or selected twice in a layer.
    pub fn push(&mut self, phase: Phase, ids: &[u16]) -> Result<(), TraceError> {
        let token = self.phases.len();
        if ids.len() != self.layers.len() * self.experts_per_token() {
            let problem = "does not select the right number of experts";
            return Err(TraceError::Token { token, problem });
        }
        // A handful of ids: comparing all pairs is quicker than any set.
        let twice = |ids: &[u16]| (1..ids.len()).any(|at| ids[..at].contains(&ids[at]));
        for ids in ids.chunks_exact(self.experts_per_token()) {
            if ids.iter().all(|id| *id == Self::ABSENT) {
                continue;
            }
            let problem = if ids.iter().any(|id| u32::from(*id) >= self.experts) {
                "selects an expert that does not exist"
            } else if twice(ids) {
                "selects an expert twice"
            } else {
                continue;
            };
            return Err(TraceError::Token { token, problem });
        }
        self.phases.push(phase);
        self.ids.extend_from_slice(ids);
        Ok(())
    }

    /// Writes the whole trace.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: &mut impl Write) -> Result<(), TraceError> {
        out.write_all(&MAGIC)?;
        let layers = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        for number in [VERSION, layers, self.experts, self.experts_per_token]
            .iter()
            .chain(&self.layers)
        {
            out.write_all(&number.to_le_bytes())?;
        }
        let mut record = Vec::new();
        for (phase, ids) in self
            .phases
            .iter()
            .zip(self.ids.chunks_exact(self.layers.len() * self.experts_per_token()))
        {
            record.clear();
            record.push(u8::from(*phase == Phase::Decode));
            record.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
            out.write_all(&record)?;
        }
        Ok(())
    }

    /// Reads a trace of `limit` bytes at most; memory grows with what is really there, never with what a header says. An
    /// incomplete last record is dropped.
    ///
    /// # Errors
    /// When it is longer, no trace, or says something impossible.
    pub fn read(input: impl Read, limit: u64) -> Result<Self, TraceError> {
        let mut bytes = Vec::new();
        input.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(TraceError::TooLong { limit });
        }
        let mut rest = &bytes[..];
        if rest.split_off(..8) != Some(&MAGIC) || number(&mut rest)? != VERSION {
            return Err(TraceError::Foreign);
        }
        let [count, experts, experts_per_token] = [number(&mut rest)?, number(&mut rest)?, number(&mut rest)?];
        if count > MAX_LAYERS {
            return Err(TraceError::Geometry(format!("{count} layers")));
        }
        let layers = (0..count).map(|_| number(&mut rest)).collect::<Result<_, _>>()?;
        let mut trace = Self::new(layers, experts, experts_per_token)?;
        let length = trace.layers.len() * trace.experts_per_token();
        let mut ids = Vec::with_capacity(length.min(rest.len()));
        for record in rest.chunks_exact(1 + 2 * length) {
            let phase = match record[0] {
                0 => Phase::Prefill,
                1 => Phase::Decode,
                _ => {
                    let token = trace.phases.len();
                    let problem = "is neither prefill nor decode";
                    return Err(TraceError::Token { token, problem });
                }
            };
            ids.clear();
            ids.extend(record[1..].as_chunks().0.iter().map(|id| u16::from_le_bytes(*id)));
            trace.push(phase, &ids)?;
        }
        Ok(trace)
    }
}

fn number(rest: &mut &[u8]) -> Result<u32, TraceError> {
    let bytes = rest.split_off(..4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or(TraceError::Foreign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trace() -> Trace {
        let mut trace = Trace::new(vec![4, 9], 32, 2).unwrap();
        trace.push(Phase::Prefill, &[0, 31, 5, 6]).unwrap();
        trace.push(Phase::Decode, &[1, 2, 31, 0]).unwrap();
        trace
    }

    fn written(trace: &Trace) -> Vec<u8> {
        let mut bytes = Vec::new();
        trace.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn comes_back_as_it_was() {
        let trace = trace();
        let bytes = written(&trace);
        assert_eq!(Trace::read(&bytes[..], 1000).unwrap(), trace);
        assert_eq!(trace.selection(1, 1), [31, 0]);
        assert!(trace.selection(1, 2).is_empty() && trace.selection(2, 0).is_empty());
        // A recording that was cut short.
        let cut = Trace::read(&bytes[..bytes.len() - 3], 1000).unwrap();
        assert_eq!(cut.phases(), [Phase::Prefill]);
        assert!(matches!(
            Trace::read(&bytes[..], 20),
            Err(TraceError::TooLong { limit: 20 })
        ));
    }

    #[test]
    fn impossible_tokens_are_refused() {
        let mut trace = trace();
        for ids in [&[1, 2, 3][..], &[1, 2, 3, 32], &[1, 2, 3, 3]] {
            assert!(trace.push(Phase::Decode, ids).is_err());
        }
        assert_eq!(trace.phases().len(), 2);
        for (layers, experts, experts_per_token) in
            [(vec![], 4, 2), (vec![1], 4, 5), (vec![1], 4, 0), (vec![1], 1 << 17, 1)]
        {
            assert!(Trace::new(layers, experts, experts_per_token).is_err());
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..50, byte in any::<u8>(), cut in 0usize..60) {
            let mut bytes = written(&trace());
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut);
            if let Ok(trace) = Trace::read(&bytes[..], 1000) {
                let again = written(&trace);
                prop_assert_eq!(&again[..], &bytes[..again.len()]);
            }
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut file = written(&trace());
            file.truncate(12);
            file.extend(&bytes);
            let _ = (Trace::read(&bytes[..], 1000), Trace::read(&file[..], 1000));
        }
    }
}
