//! What follows what.

/// For each pair of experts of a layer, how many tokens that selected the first were followed by one that selected the
/// second: the next one or, if that is wanted, one of the few after it. One table of experts x experts, 4 bytes each: 1 MiB
/// for 512 experts.
#[derive(Debug)]
pub(super) struct Pairs {
    /// [before, after], in tokens.
    followed: Vec<f32>,
    /// Tokens that selected an expert, by expert.
    selected: Vec<f32>,
    /// Tokens, as far as they are remembered.
    tokens: f32,
    /// What the last tokens selected, the very last one first.
    last: Vec<Vec<u32>>,
    /// What it counts if an expert follows by one token, by two, and so on.
    counts: &'static [f32],
}

/// Tokens after which all that was learnt counts half.
const MEMORY: f32 = 65_536.0;

impl Pairs {
    /// `counts` is what it counts if an expert follows by one token, by two, and so on.
    pub(super) fn new(experts: usize, counts: &'static [f32]) -> Self {
        Self {
            followed: vec![0.0; experts * experts],
            selected: vec![0.0; experts],
            tokens: 0.0,
            last: counts.iter().map(|_| Vec::with_capacity(experts)).collect(),
            counts,
        }
    }

    /// What the last token selected; empty where another text begins.
    pub(super) fn current(&self) -> &[u32] {
        self.last.first().map_or(&[], Vec::as_slice)
    }

    /// Tokens that selected an expert, by expert.
    pub(super) fn selected(&self) -> &[f32] {
        &self.selected
    }

    /// Tokens that were seen, as far as they are remembered.
    pub(super) fn tokens(&self) -> f32 {
        self.tokens
    }

    /// For one of the [`current`](Self::current) experts: by expert, how often it followed; and how often one that always
    /// does would have.
    pub(super) fn after(&self, before: u32) -> (&[f32], f32) {
        let (before, count) = (before as usize, self.selected.len());
        (
            &self.followed[before * count..(before + 1) * count],
            self.selected[before] * self.counts.iter().sum::<f32>(),
        )
    }

    /// Takes in what the next token selected. Unknown experts are ignored.
    pub(super) fn observe(&mut self, experts: &[u32]) {
        let count = self.selected.len();
        for (last, counts) in self.last.iter().zip(self.counts) {
            for before in last {
                let row = *before as usize * count;
                let Some(row) = self.followed.get_mut(row..row + count) else {
                    continue;
                };
                for after in experts {
                    if let Some(pair) = row.get_mut(*after as usize) {
                        *pair += counts;
                    }
                }
            }
        }
        self.count(experts);
        self.tokens += 1.0;
        if self.tokens > MEMORY {
            let all = self.followed.iter_mut().chain(&mut self.selected);
            all.for_each(|number| *number *= 0.5);
            self.tokens *= 0.5;
        }
        self.last.rotate_right(1);
        self.keep(experts);
    }

    /// The next token does not follow the last one that was observed, but one that selected these experts: none if it is not
    /// known.
    pub(super) fn restart(&mut self, experts: &[u32]) {
        self.last.iter_mut().for_each(Vec::clear);
        self.count(experts);
        self.keep(experts);
    }

    fn count(&mut self, experts: &[u32]) {
        for expert in experts {
            if let Some(selected) = self.selected.get_mut(*expert as usize) {
                *selected += 1.0;
            }
        }
    }

    /// Remembers what the last token selected.
    fn keep(&mut self, experts: &[u32]) {
        let count = self.selected.len();
        if let Some(last) = self.last.first_mut() {
            last.clear();
            let known = experts.iter().filter(|expert| (**expert as usize) < count);
            // Within the capacity, whatever a caller reports.
            last.extend(known.take(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_later_counts_less() {
        let mut pairs = Pairs::new(8, &[1.0, 0.25]);
        pairs.observe(&[0, 9]);
        pairs.observe(&[1, 2]);
        pairs.observe(&[3]);
        assert_eq!(pairs.after(0), (&[0.0, 1.0, 1.0, 0.25, 0.0, 0.0, 0.0, 0.0][..], 1.25));
        assert_eq!(pairs.after(1).0[3], 1.0);
        assert_eq!(pairs.current(), [3]);
    }

    /// What came before the prompt has nothing to do with what comes after it, but its last token has.
    #[test]
    fn a_text_begins_where_its_prompt_ended() {
        let mut pairs = Pairs::new(8, &[1.0, 0.25]);
        pairs.observe(&[0]);
        pairs.restart(&[5]);
        assert_eq!(pairs.current(), [5]);
        pairs.observe(&[1]);
        pairs.observe(&[2]);
        assert_eq!((pairs.after(0).0[1], pairs.after(0).0[2]), (0.0, 0.0));
        assert_eq!((pairs.after(5).0[1], pairs.after(5).0[2]), (1.0, 0.25));
        assert_eq!(pairs.after(5).1, 1.25, "it always followed");
        pairs.restart(&[]);
        assert!(pairs.current().is_empty());
    }
}
