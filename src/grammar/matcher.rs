//! One text that follows a grammar.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::automaton::Automaton;
use super::error::{Exhausted, GrammarError};
use super::syntax::{TokenName, parse};
use super::tables::{DEAD, SetId, Tables};
use super::trigger::{Trigger, Triggered, Triggers, Waiting};
use super::vocabulary::{Kind, Token, Vocabulary};

/// Work (pairs that are looked at, about 50 ns each) that following a grammar may take at once, and what each token adds.
const MAX_ALLOWANCE: u64 = 10_000_000;
const ALLOWANCE_PER_TOKEN: u64 = 20_000;

/// A grammar that is ready to be followed, by any number of texts. What one of them finds out, all of them know.
#[derive(Debug)]
pub struct Compiled {
    tables: Mutex<Tables>,
    vocabulary: Arc<Vocabulary>,
    /// `None`: the grammar holds from the beginning.
    triggers: Option<Triggers>,
}

impl Compiled {
    /// Compiles a grammar in llama.cpp's notation. Takes up to a good part of a second, whatever the grammar is.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn new(text: &str, triggers: Option<&[Trigger]>, vocabulary: Arc<Vocabulary>) -> Result<Self, GrammarError> {
        let rules = parse(text, &|name| match name {
            TokenName::Id(id) => vocabulary.token(id),
            TokenName::Text(text) => vocabulary.named(text),
        })?;
        let grammar = Automaton::new(rules)?;
        let too_ambiguous = |Exhausted| GrammarError::TooLarge("it is too ambiguous to be followed".into());
        let mut tables = Tables::new(grammar, vocabulary.clone(), MAX_ALLOWANCE).map_err(too_ambiguous)?;
        let start = tables.start();
        // What may come first is asked for soon.
        tables.mask(start).map_err(too_ambiguous)?;
        Ok(Self {
            tables: Mutex::new(tables),
            vocabulary,
            triggers: triggers.map(Triggers::new).transpose()?,
        })
    }

    /// Whether it is better to compile the grammar anew for the next text: too much was found out about it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.tables.lock().is_full()
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tables.lock().bytes()
    }
}

/// Follows a grammar token by token.
#[derive(Debug)]
pub struct Matcher {
    compiled: Arc<Compiled>,
    /// Control tokens that are printed.
    preserved: Vec<Token>,
    /// All control tokens are printed.
    special: bool,
    phase: Phase,
    allowance: u64,
}

#[derive(Debug)]
enum Phase {
    /// For a trigger.
    Waiting(Box<Waiting>),
    /// At this place of the tables.
    At(SetId),
}

impl Matcher {
    /// A text that has not begun. `preserved` control tokens (all with `special`) are text.
    #[must_use]
    pub fn new(compiled: Arc<Compiled>, preserved: Vec<Token>, special: bool) -> Self {
        let phase = match &compiled.triggers {
            Some(triggers) => Phase::Waiting(Box::new(Waiting::new(triggers))),
            None => Phase::At(compiled.tables.lock().start()),
        };
        Self {
            compiled,
            preserved,
            special,
            phase,
            allowance: MAX_ALLOWANCE,
        }
    }

    /// Begins the text with the end of the prompt. `tokens` are its tokens; a grammar may name them. False if the grammar does
    /// not allow it. A grammar that waits for a trigger has not begun there.
    ///
    /// # Errors
    /// When following the grammar takes too much work.
    pub fn begin_with(&mut self, text: &str, tokens: &[Token]) -> Result<bool, Exhausted> {
        self.follow(|set, tables| {
            let mut next = *set;
            for token in tokens {
                next = tables.advance(next, *token, true)?;
            }
            if next == DEAD {
                // Tokens may begin with a space that the text has not.
                next = tables.advance_bytes(*set, text.as_bytes())?;
            }
            *set = next;
            Ok(next != DEAD)
        })
    }

    /// Whether any token may come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting(_))
    }

    /// Takes the next token, if the grammar allows it.
    ///
    /// # Errors
    /// When following the grammar takes too much work.
    pub fn accept(&mut self, token: Token) -> Result<bool, Exhausted> {
        self.allowance = (self.allowance + ALLOWANCE_PER_TOKEN).min(MAX_ALLOWANCE);
        let compiled = self.compiled.clone();
        let ends = compiled.vocabulary.kind(token) == Kind::End;
        match &mut self.phase {
            Phase::Waiting(_) if ends => Ok(true),
            Phase::Waiting(waiting) => {
                let Some(triggers) = &compiled.triggers else {
                    return Ok(true);
                };
                let Some(Triggered { tokens, skip }) = waiting.push(triggers, token, compiled.vocabulary.piece(token))
                else {
                    return Ok(true);
                };
                let mut tables = self.tables(&compiled);
                let mut set = tables.start();
                for (index, token) in tokens.into_iter().enumerate() {
                    set = match (index, skip) {
                        (0, 1..) => {
                            let piece = compiled.vocabulary.piece(token);
                            tables.advance_bytes(set, piece.get(skip..).unwrap_or_default())?
                        }
                        // Triggers are always text.
                        _ => tables.advance(set, token, true)?,
                    };
                }
                self.allowance = tables.allowance;
                drop(tables);
                if set != DEAD {
                    self.phase = Phase::At(set);
                } else if let Phase::Waiting(waiting) = &mut self.phase {
                    waiting.pop();
                }
                Ok(set != DEAD)
            }
            Phase::At(_) if ends => self.follow(|set, tables| Ok(tables.is_complete(*set))),
            Phase::At(_) => {
                let printed =
                    self.special || self.preserved.contains(&token) || compiled.vocabulary.kind(token) == Kind::Text;
                self.follow(|set, tables| {
                    let next = tables.advance(*set, token, printed)?;
                    if next != DEAD {
                        *set = next;
                    }
                    Ok(next != DEAD)
                })
            }
        }
    }

    /// Calls `visit` for each token that may come next, but for those that end the text; returns whether those may come. While
    /// a trigger is waited for, every token may come, and nothing is visited.
    ///
    /// # Errors
    /// When following the grammar takes too much work.
    pub fn allowed(&mut self, mut visit: impl FnMut(Token)) -> Result<bool, Exhausted> {
        let vocabulary = self.compiled.vocabulary.clone();
        let printed: Vec<Token> = match self.special {
            true => vocabulary.control().collect(),
            false => self.preserved.clone(),
        };
        self.follow(|set, tables| {
            let mask = tables.mask(*set)?;
            mask.iter().for_each(&mut visit);
            for token in printed {
                if vocabulary.kind(token) == Kind::Control
                    && !mask.contains(token)
                    && tables.advance(*set, token, true)? != DEAD
                {
                    visit(token);
                }
            }
            Ok(tables.is_complete(*set))
        })
    }

    fn tables<'c>(&self, compiled: &'c Compiled) -> MutexGuard<'c, Tables> {
        let mut tables = compiled.tables.lock();
        tables.allowance = self.allowance;
        tables
    }

    /// Works on the text's place in the tables; true while a trigger is waited for.
    fn follow(
        &mut self,
        work: impl FnOnce(&mut SetId, &mut Tables) -> Result<bool, Exhausted>,
    ) -> Result<bool, Exhausted> {
        let compiled = self.compiled.clone();
        let mut tables = self.tables(&compiled);
        let Phase::At(set) = &mut self.phase else {
            return Ok(true);
        };
        let result = work(set, &mut tables)?;
        self.allowance = tables.allowance;
        Ok(result)
    }
}
