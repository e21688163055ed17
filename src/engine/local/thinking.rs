//! A bound for the thoughts of an answer.

use crate::engine::{ReasoningBudget, Token};

/// Counts the tokens of a thought, and says when it has to end.
#[derive(Debug)]
pub(super) struct Thinking {
    limits: ReasoningBudget,
    state: State,
    /// The last tokens, as many as the longer of both sequences has.
    recent: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    /// With so many tokens left.
    Inside(u32),
    /// So many tokens of the end were forced.
    Ending(usize),
}

impl Thinking {
    pub(super) fn new(limits: ReasoningBudget) -> Self {
        let state = match limits.already_open {
            true => State::Inside(limits.budget),
            false => State::Outside,
        };
        Self {
            limits,
            state,
            recent: Vec::new(),
        }
    }

    /// Whether the text is inside a thought.
    pub(super) fn is_inside(&self) -> bool {
        self.state != State::Outside
    }

    /// The token that has to come, if the budget is used up. A character is not torn apart: `within_character` puts it off.
    pub(super) fn forced(&self, within_character: bool) -> Option<Token> {
        match self.state {
            State::Inside(0) if !within_character => self.limits.end.first().copied(),
            State::Ending(forced) => self.limits.end.get(forced).copied(),
            State::Inside(_) | State::Outside => None,
        }
    }

    /// Takes note of a token; true if it ended a thought.
    pub(super) fn accept(&mut self, token: Token, was_forced: bool) -> bool {
        let longest = self.limits.start.len().max(self.limits.end.len());
        self.recent.push(token);
        if self.recent.len() > longest {
            self.recent.remove(0);
        }
        let next = match self.state {
            State::Outside if self.recent.ends_with(&self.limits.start) => State::Inside(self.limits.budget),
            State::Inside(_) if self.recent.ends_with(&self.limits.end) => State::Outside,
            State::Inside(_) if was_forced => State::Ending(1),
            State::Inside(left) => State::Inside(left.saturating_sub(1)),
            State::Ending(forced) if forced + 1 < self.limits.end.len() => State::Ending(forced + 1),
            State::Ending(_) => State::Outside,
            State::Outside => State::Outside,
        };
        let ended = self.state != State::Outside && next == State::Outside;
        if next != self.state && matches!((self.state, next), (State::Outside, _) | (_, State::Outside)) {
            self.recent.clear();
        }
        self.state = next;
        ended
    }

    /// What closes a thought.
    pub(super) fn end(&self) -> &[Token] {
        &self.limits.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a model that would say `says`.
    fn run(budget: u32, already_open: bool, says: &[Token]) -> Vec<Token> {
        let mut thinking = Thinking::new(ReasoningBudget {
            start: vec![1],
            end: vec![8, 9],
            budget,
            already_open,
        });
        let mut said = Vec::new();
        let mut says = says.iter();
        loop {
            let forced = thinking.forced(false);
            let Some(token) = forced.or_else(|| says.next().copied()) else {
                return said;
            };
            thinking.accept(token, forced.is_some());
            said.push(token);
        }
    }

    #[test]
    fn thoughts_end_when_the_budget_does() {
        assert_eq!(run(2, true, &[5, 6, 7, 4]), [5, 6, 8, 9, 7, 4]);
        assert_eq!(run(2, false, &[5, 1, 6, 7, 4]), [5, 1, 6, 7, 8, 9, 4]);
        assert_eq!(run(0, true, &[5]), [8, 9, 5]);
        assert_eq!(run(0, false, &[1, 5]), [1, 8, 9, 5]);
    }

    #[test]
    fn a_thought_that_ends_by_itself_is_left_alone() {
        assert_eq!(run(5, true, &[5, 8, 9, 6, 7, 6, 7, 6, 7]), [5, 8, 9, 6, 7, 6, 7, 6, 7]);
        // Each thought has the budget for itself.
        assert_eq!(run(1, true, &[8, 9, 1, 3, 4]), [8, 8, 9, 9, 1, 3, 8, 9, 4]);
    }

    #[test]
    fn a_character_is_completed_first() {
        let mut thinking = Thinking::new(ReasoningBudget {
            start: vec![1],
            end: vec![9],
            budget: 1,
            already_open: true,
        });
        assert_eq!(thinking.forced(true), None);
        thinking.accept(3, false);
        assert_eq!(thinking.forced(true), None);
        thinking.accept(4, false);
        assert_eq!(thinking.forced(false), Some(9));
        assert!(thinking.accept(9, true));
        assert!(!thinking.is_inside());
    }
}
