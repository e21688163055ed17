//! Which experts the tokens of one call of llama.cpp selected, for answers that tell it.

use std::collections::BTreeMap;

/// What was selected, layer by layer.
#[derive(Debug, Default)]
pub struct Routing {
    /// By layer: the ids, token by token. A call may be computed in several passes.
    layers: BTreeMap<u32, Vec<u16>>,
    experts_per_token: usize,
}

impl Routing {
    pub(super) fn push(&mut self, layer: u32, experts_per_token: usize, ids: &[u32]) {
        self.experts_per_token = experts_per_token;
        let ids = ids.iter().map(|id| u16::try_from(*id).unwrap_or(u16::MAX));
        self.layers.entry(layer).or_default().extend(ids);
    }

    /// What one of the call's `tokens` selected, layer by layer; `None` if a layer did not see all of them.
    #[must_use]
    pub fn token(&self, index: usize, tokens: usize) -> Option<Vec<Vec<u16>>> {
        let (start, end) = (index * self.experts_per_token, (index + 1) * self.experts_per_token);
        let layers = self.layers.values().map(|ids| {
            let complete = ids.len() == tokens * self.experts_per_token;
            Some(ids.get(start..end).filter(|_| complete)?.to_vec())
        });
        let layers: Vec<Vec<u16>> = layers.collect::<Option<_>>()?;
        (!layers.is_empty()).then_some(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_of_a_call_are_put_together() {
        let mut routing = Routing::default();
        // Two passes over two layers.
        for (layer, ids) in [(1, [0, 1, 2, 3]), (0, [4, 5, 6, 7]), (1, [8, 9, 8, 9])] {
            routing.push(layer, 2, &ids);
        }
        assert_eq!(routing.token(0, 4), None);
        routing.push(0, 2, &[10, 11, 12, 13]);
        assert_eq!(routing.token(1, 4), Some(vec![vec![6, 7], vec![2, 3]]));
        assert_eq!(routing.token(3, 4), Some(vec![vec![12, 13], vec![8, 9]]));
        assert_eq!(Routing::default().token(0, 0), None);
    }
}
