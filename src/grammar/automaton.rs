//! A grammar as states: per rule a small automaton that reads characters and tokens, and calls other rules.

use super::class::Class;
use super::error::GrammarError;
use super::syntax::{Expression, Rules};
use super::vocabulary::Token;

pub(super) type StateId = u32;
pub(super) type RuleId = u32;

/// What happens in a state, and where it goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    /// Reads a character of a class.
    Class { class: u32, next: StateId },
    /// Reads one token, or any token but this.
    Token { token: Token, negated: bool, next: StateId },
    /// Reads what a rule describes.
    Call { rule: RuleId, next: StateId },
    /// Goes on in both.
    Split(StateId, StateId),
    /// The end of a rule.
    End,
    /// The end of the text.
    Accept,
}

#[derive(Debug)]
pub(super) struct Automaton {
    pub(super) states: Vec<State>,
    pub(super) classes: Vec<Class>,
    /// Where each rule begins.
    pub(super) starts: Vec<StateId>,
    /// Whether a rule may read nothing.
    pub(super) nullable: Vec<bool>,
    /// A rule that another one calls before it reads anything has a higher rank than that one.
    pub(super) rank: Vec<u32>,
    pub(super) root: RuleId,
    /// The only state of its kind.
    pub(super) accept: StateId,
}

const MAX_STATES: usize = 400_000;
/// States that the analysis may visit: rules that may be empty are looked at again and again.
const MAX_VISITS: usize = 20_000_000;

impl Automaton {
    pub(super) fn new(rules: Rules) -> Result<Self, GrammarError> {
        let mut this = Self {
            states: vec![State::Accept],
            classes: rules.classes,
            starts: Vec::with_capacity(rules.bodies.len()),
            nullable: vec![false; rules.bodies.len()],
            rank: Vec::new(),
            root: rules.root,
            accept: 0,
        };
        for body in &rules.bodies {
            let end = this.add(State::End)?;
            let start = this.build(body, end)?;
            this.starts.push(start);
        }
        this.find_nullable()?;
        this.find_ranks(&rules.names)?;
        Ok(this)
    }

    fn add(&mut self, state: State) -> Result<StateId, GrammarError> {
        if self.states.len() >= MAX_STATES {
            return Err(GrammarError::TooLarge(format!(
                "with its repetitions written out it has more than {MAX_STATES} parts"
            )));
        }
        self.states.push(state);
        Ok(u32::try_from(self.states.len() - 1).unwrap_or(u32::MAX))
    }

    /// The beginning of states that read `expression` and go on at `next`. The parser bounds how deep expressions nest.
    fn build(&mut self, expression: &Expression, next: StateId) -> Result<StateId, GrammarError> {
        match expression {
            Expression::Class(class) => self.add(State::Class { class: *class, next }),
            Expression::Token { token, negated } => self.add(State::Token {
                token: *token,
                negated: *negated,
                next,
            }),
            Expression::Rule(rule) => self.add(State::Call { rule: *rule, next }),
            Expression::Sequence(items) => items.iter().rev().try_fold(next, |next, item| self.build(item, next)),
            Expression::Choice(choices) => {
                let mut start = None;
                for choice in choices.iter().rev() {
                    let this = self.build(choice, next)?;
                    start = Some(match start {
                        None => this,
                        Some(others) => self.add(State::Split(this, others))?,
                    });
                }
                Ok(start.unwrap_or(next))
            }
            Expression::Repeat(item, least, most) => {
                let mut start = next;
                match most {
                    None => {
                        start = self.add(State::Split(next, next))?;
                        let body = self.build(item, start)?;
                        self.states[start as usize] = State::Split(body, next);
                    }
                    Some(most) => {
                        for _ in *least..*most {
                            let body = self.build(item, start)?;
                            start = self.add(State::Split(body, next))?;
                        }
                    }
                }
                for _ in 0..*least {
                    let body = self.build(item, start)?;
                    if body == start {
                        // Nothing, however often.
                        break;
                    }
                    start = body;
                }
                Ok(start)
            }
        }
    }

    /// Whether a state is the end of its rule: a call that goes on there needs no way back.
    pub(super) fn is_end(&self, state: StateId) -> bool {
        matches!(self.states[state as usize], State::End)
    }

    /// Calls `visit` for every rule that may be called before anything is read; returns whether the rule may read nothing.
    fn explore(
        &self,
        rule: usize,
        seen: &mut Seen,
        visits: &mut usize,
        mut visit: impl FnMut(RuleId),
    ) -> Result<bool, GrammarError> {
        seen.clear();
        let mut nullable = false;
        let mut todo = vec![self.starts[rule]];
        while let Some(state) = todo.pop() {
            if !seen.insert(state) {
                continue;
            }
            *visits += 1;
            if *visits > MAX_VISITS {
                return Err(GrammarError::TooLarge("too many of its rules may be empty".into()));
            }
            match self.states[state as usize] {
                State::Split(a, b) => todo.extend([a, b]),
                State::Call { rule, next } => {
                    visit(rule);
                    if self.nullable[rule as usize] {
                        todo.push(next);
                    }
                }
                State::End => nullable = true,
                State::Class { .. } | State::Token { .. } | State::Accept => {}
            }
        }
        Ok(nullable)
    }

    fn find_nullable(&mut self) -> Result<(), GrammarError> {
        let mut seen = Seen::new(self.states.len());
        let mut visits = 0;
        let rules = self.starts.len();
        // Who has to be looked at again when a rule turns out to be possibly empty.
        let mut callers: Vec<Vec<u32>> = vec![Vec::new(); rules];
        let mut todo: Vec<usize> = (0..rules).collect();
        let mut waits = vec![true; rules];
        while let Some(rule) = todo.pop() {
            waits[rule] = false;
            if self.nullable[rule] {
                continue;
            }
            let caller = u32::try_from(rule).unwrap_or(u32::MAX);
            let nullable = self.explore(rule, &mut seen, &mut visits, |called| {
                let callers = &mut callers[called as usize];
                if callers.last() != Some(&caller) {
                    callers.push(caller);
                }
            })?;
            if nullable {
                self.nullable[rule] = true;
                for caller in std::mem::take(&mut callers[rule]) {
                    if !std::mem::replace(&mut waits[caller as usize], true) {
                        todo.push(caller as usize);
                    }
                }
            }
        }
        Ok(())
    }

    /// Orders the rules so that callers come before those that they begin with; there is no such order with left recursion.
    fn find_ranks(&mut self, names: &[String]) -> Result<(), GrammarError> {
        let rules = self.starts.len();
        let mut seen = Seen::new(self.states.len());
        let mut visits = 0;
        let mut left: Vec<Vec<RuleId>> = Vec::with_capacity(rules);
        for rule in 0..rules {
            let mut called = Vec::new();
            self.explore(rule, &mut seen, &mut visits, |rule| called.push(rule))?;
            called.sort_unstable();
            called.dedup();
            left.push(called);
        }
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; rules];
        self.rank = vec![0; rules];
        let mut next_rank = u32::try_from(rules).unwrap_or(u32::MAX);
        // Depth first without recursion: a rule, and how many of those that it begins with are done.
        let mut path: Vec<(usize, usize)> = Vec::new();
        for first in 0..rules {
            if marks[first] != Mark::New {
                continue;
            }
            marks[first] = Mark::Open;
            path.push((first, 0));
            while let Some((rule, done)) = path.last_mut() {
                if let Some(called) = left[*rule].get(*done) {
                    *done += 1;
                    let called = *called as usize;
                    match marks[called] {
                        Mark::Open => return Err(GrammarError::LeftRecursion(names[called].clone())),
                        Mark::Done => {}
                        Mark::New => {
                            marks[called] = Mark::Open;
                            path.push((called, 0));
                        }
                    }
                } else {
                    marks[*rule] = Mark::Done;
                    next_rank -= 1;
                    self.rank[*rule] = next_rank;
                    path.pop();
                }
            }
        }
        Ok(())
    }
}

/// A set of states that is emptied cheaply.
struct Seen {
    round: u32,
    rounds: Vec<u32>,
}

impl Seen {
    fn new(states: usize) -> Self {
        Self {
            round: 0,
            rounds: vec![0; states],
        }
    }

    fn clear(&mut self) {
        self.round += 1;
    }

    fn insert(&mut self, state: StateId) -> bool {
        std::mem::replace(&mut self.rounds[state as usize], self.round) != self.round
    }
}

#[cfg(test)]
mod tests {
    use super::super::syntax::parse;
    use super::*;

    fn build(text: &str) -> Result<Automaton, GrammarError> {
        Automaton::new(parse(text, &|_| None)?)
    }

    #[test]
    fn left_recursion_is_found_however_it_hides() {
        for text in [
            "root ::= root \"a\" | \"b\"",
            "root ::= a\na ::= b\nb ::= a | \"x\"",
            // `e` may be empty through `f`, so `root` comes to itself.
            "root ::= e root \"x\" | \"y\"\ne ::= f\nf ::= \"z\" | ",
            "root ::= (\"a\"? root)*",
            "root ::= \"\"{3} root",
        ] {
            assert!(matches!(build(text), Err(GrammarError::LeftRecursion(_))), "{text}");
        }
        for text in ["root ::= \"a\" root | ", "root ::= a root \"x\" | \"y\"\na ::= \"b\"+"] {
            assert!(build(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn blown_up_grammars_are_refused() {
        for text in [
            "root ::= (((\"a\"{1000}){1000}){1000}){1000}",
            "root ::= (([a-z] [a-z]){0,100000} [0-9]{0,100000}){0,9}",
        ] {
            assert!(matches!(build(text), Err(GrammarError::TooLarge(_))), "{text}");
        }
        assert!(build("root ::= ((((\"\"{100000}){100000}){100000}){100000}){100000}").is_ok());
        // A chain of rules that may be empty, in the worst order for finding that out.
        let chain: String = (0..20_000).map(|n| format!("r{n} ::= r{} | \"\"\n", n + 1)).collect();
        assert!(build(&format!("root ::= r0\n{chain}r20000 ::= \"a\"?")).is_ok());
    }

    #[test]
    fn callers_rank_before_what_they_begin_with() {
        let grammar = build("root ::= a b\na ::= b? c\nb ::= c\nc ::= \"x\"").unwrap();
        let [root, a, b, c] = grammar.rank[..] else { panic!() };
        assert!(root < a && a < b && b < c);
        assert_eq!(grammar.nullable, [false; 4]);
    }
}
