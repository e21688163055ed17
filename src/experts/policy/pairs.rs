//! What follows what.

/// For each pair of experts of a layer, how many tokens that selected the first were followed by one that selected the
/// second. One table of experts x experts, 4 bytes each: 1 MiB for 512 experts.
#[derive(Debug)]
pub(super) struct Pairs {
    /// [before, after], in tokens.
    followed: Vec<f32>,
    /// Tokens that selected an expert, by expert.
    selected: Vec<f32>,
    /// Tokens, as far as they are remembered.
    tokens: f32,
    /// What the last token selected.
    current: Vec<u32>,
}

/// Tokens after which all that was learnt counts half.
const MEMORY: f32 = 65_536.0;

impl Pairs {
    pub(super) fn new(experts: usize) -> Self {
        Self {
            followed: vec![0.0; experts * experts],
            selected: vec![0.0; experts],
            tokens: 0.0,
            current: Vec::with_capacity(experts),
        }
    }

    /// What the last token selected; empty where another text begins.
    pub(super) fn current(&self) -> &[u32] {
        &self.current
    }

    /// Tokens that selected an expert, by expert.
    pub(super) fn selected(&self) -> &[f32] {
        &self.selected
    }

    /// Tokens that were seen, as far as they are remembered.
    pub(super) fn tokens(&self) -> f32 {
        self.tokens
    }

    /// For one of the [`current`](Self::current) experts: by expert, how often it followed; and how often the current one
    /// was selected.
    pub(super) fn after(&self, before: u32) -> (&[f32], f32) {
        let (before, count) = (before as usize, self.selected.len());
        (
            &self.followed[before * count..(before + 1) * count],
            self.selected[before],
        )
    }

    /// Takes in what the next token selected. Unknown experts are ignored.
    pub(super) fn observe(&mut self, experts: &[u32]) {
        let count = self.selected.len();
        for before in &self.current {
            let row = *before as usize * count;
            let Some(row) = self.followed.get_mut(row..row + count) else {
                continue;
            };
            for after in experts {
                if let Some(pair) = row.get_mut(*after as usize) {
                    *pair += 1.0;
                }
            }
        }
        for expert in experts {
            if let Some(selected) = self.selected.get_mut(*expert as usize) {
                *selected += 1.0;
            }
        }
        self.tokens += 1.0;
        if self.tokens > MEMORY {
            let all = self.followed.iter_mut().chain(&mut self.selected);
            all.for_each(|number| *number *= 0.5);
            self.tokens *= 0.5;
        }
        self.current.clear();
        let known = experts.iter().filter(|expert| (**expert as usize) < count);
        // Within the capacity, whatever a caller reports.
        self.current.extend(known.take(count));
    }

    /// The next token does not follow the last one.
    pub(super) fn interrupt(&mut self) {
        self.current.clear();
    }
}
