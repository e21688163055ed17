//! Where a lazy grammar begins to hold: words and patterns that are looked for while a text grows.

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Input, meta};

use super::error::GrammarError;
use super::vocabulary::Token;

/// What puts a lazy grammar into force. The text that the grammar applies to begins with the trigger.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// This token.
    Token(Token),
    /// This text, anywhere.
    Word(String),
    /// A regular expression that is found anywhere. The grammar begins at its first group that is not empty, or at its
    /// beginning.
    Pattern(String),
    /// A regular expression that matches the whole text so far.
    PatternFull(String),
}

const MAX_TRIGGERS: usize = 256;
const MAX_PATTERN_BYTES: usize = 8 << 10;
/// What a compiled pattern may take.
const MAX_COMPILED_BYTES: usize = 4 << 20;

/// The triggers of a grammar.
#[derive(Debug)]
pub(super) struct Triggers {
    tokens: Vec<Token>,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// Says of a text that grows byte by byte whether there is a match.
    growing: DFA,
    /// Says where it is.
    search: meta::Regex,
}

impl Triggers {
    pub(super) fn new(triggers: &[Trigger]) -> Result<Self, GrammarError> {
        if triggers.len() > MAX_TRIGGERS {
            return Err(GrammarError::TooLarge(format!("more than {MAX_TRIGGERS} triggers")));
        }
        let mut this = Self {
            tokens: Vec::new(),
            patterns: Vec::new(),
        };
        for trigger in triggers {
            match trigger {
                Trigger::Token(token) => this.tokens.push(*token),
                Trigger::Word(word) => this.patterns.push(Pattern::new(&regex_syntax::escape(word))?),
                Trigger::Pattern(pattern) => this.patterns.push(Pattern::new(pattern)?),
                Trigger::PatternFull(pattern) => this.patterns.push(Pattern::new(&format!("\\A(?:{pattern})\\z"))?),
            }
        }
        Ok(this)
    }

    pub(super) fn has_token(&self, token: Token) -> bool {
        self.tokens.contains(&token)
    }
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, GrammarError> {
        let wrong = |reason: String| GrammarError::Trigger {
            pattern: pattern.chars().take(64).collect(),
            reason,
        };
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(wrong(format!("it has more than {MAX_PATTERN_BYTES} bytes")));
        }
        // Tokens may end inside of a character.
        let syntax = syntax::Config::new().utf8(false);
        let thompson = thompson::Config::new()
            .utf8(false)
            .nfa_size_limit(Some(MAX_COMPILED_BYTES));
        let growing = DFA::builder()
            .configure(Config::new().skip_cache_capacity_check(true))
            .syntax(syntax)
            .thompson(thompson)
            .build(pattern)
            .map_err(|error| wrong(error.to_string()))?;
        let search = meta::Regex::builder()
            .configure(
                meta::Config::new()
                    .utf8_empty(false)
                    .nfa_size_limit(Some(MAX_COMPILED_BYTES)),
            )
            .syntax(syntax)
            .build(pattern)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { growing, search })
    }

    /// Where the grammar begins in a text that has a match.
    fn begin(&self, text: &[u8]) -> Option<usize> {
        let mut groups = self.search.create_captures();
        self.search.search_captures(&Input::new(text), &mut groups);
        let whole = groups.get_group(0)?;
        let inner = (1..groups.group_len()).filter_map(|group| groups.get_group(group));
        Some(
            inner
                .filter(|span| !span.is_empty())
                .map(|span| span.start)
                .next()
                .unwrap_or(whole.start),
        )
    }
}

/// A text that waits for a trigger.
#[derive(Debug)]
pub(super) struct Waiting {
    text: Vec<u8>,
    /// Each token with the place where its bytes begin.
    tokens: Vec<(Token, usize)>,
    searches: Vec<Search>,
}

/// How far a pattern is.
#[derive(Debug)]
struct Search {
    cache: Cache,
    /// After all of the text; `None` if it has to be found out from the beginning of the text.
    state: Option<LazyStateID>,
}

/// The tokens that a grammar applies to when its trigger came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Triggered {
    pub(super) tokens: Vec<Token>,
    /// Bytes of the first token that come before the trigger.
    pub(super) skip: usize,
}

impl Waiting {
    pub(super) fn new(triggers: &Triggers) -> Self {
        let searches = triggers.patterns.iter().map(|pattern| Search {
            cache: pattern.growing.create_cache(),
            state: None,
        });
        Self {
            text: Vec::new(),
            tokens: Vec::new(),
            searches: searches.collect(),
        }
    }

    /// Adds a token; returns what the grammar applies to if that is a trigger.
    pub(super) fn push(&mut self, triggers: &Triggers, token: Token, piece: &[u8]) -> Option<Triggered> {
        let start = self.text.len();
        self.text.extend_from_slice(piece);
        self.tokens.push((token, start));
        if triggers.has_token(token) {
            return Some(self.from(start));
        }
        let mut begin = None;
        for (pattern, search) in triggers.patterns.iter().zip(&mut self.searches) {
            if search.grow(&pattern.growing, &self.text, start) {
                begin = begin.or_else(|| pattern.begin(&self.text));
            }
        }
        begin.map(|begin| self.from(begin))
    }

    /// Takes the last token back.
    pub(super) fn pop(&mut self) {
        if let Some((_, start)) = self.tokens.pop() {
            self.text.truncate(start);
            self.searches.iter_mut().for_each(|search| search.state = None);
        }
    }

    fn from(&self, begin: usize) -> Triggered {
        // The last token that begins there or before.
        let first = self
            .tokens
            .partition_point(|(_, start)| *start <= begin)
            .saturating_sub(1);
        Triggered {
            tokens: self.tokens[first..].iter().map(|(token, _)| *token).collect(),
            skip: begin - self.tokens[first].1,
        }
    }
}

impl Search {
    /// Reads what is new in a text, from `start`; true if there is a match now.
    fn grow(&mut self, pattern: &DFA, text: &[u8], start: usize) -> bool {
        let known = self.state.map(|state| (state, &text[start..]));
        let cleared = self.cache.clear_count();
        let mut found = self.run(pattern, known, text);
        if cleared != self.cache.clear_count() || found.is_none() {
            // States of a cache that was emptied mean nothing; the next time begins anew.
            found = self.run(pattern, None, text);
            self.state = None;
        }
        found.unwrap_or(false)
    }

    fn run(&mut self, pattern: &DFA, known: Option<(LazyStateID, &[u8])>, text: &[u8]) -> Option<bool> {
        let (mut state, new) = match known {
            Some(known) => known,
            None => (
                pattern.start_state_forward(&mut self.cache, &Input::new("")).ok()?,
                text,
            ),
        };
        let mut matched = false;
        for byte in new {
            state = pattern.next_state(&mut self.cache, state, *byte).ok()?;
            matched |= state.is_match();
            if state.is_quit() {
                return None;
            }
        }
        self.state = Some(state);
        let end = pattern.next_eoi_state(&mut self.cache, state).ok()?;
        Some(matched || end.is_match())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(triggers: &[Trigger], pieces: &[&str]) -> Option<(usize, Triggered)> {
        let triggers = Triggers::new(triggers).unwrap();
        let mut waiting = Waiting::new(&triggers);
        for (index, piece) in pieces.iter().enumerate() {
            let token = Token::try_from(index).unwrap();
            // What is taken back leaves no trace.
            waiting.push(&triggers, 99, b"<to");
            waiting.pop();
            if let Some(triggered) = waiting.push(&triggers, token, piece.as_bytes()) {
                return Some((index, triggered));
            }
        }
        None
    }

    fn triggered(at: usize, tokens: &[Token], skip: usize) -> Option<(usize, Triggered)> {
        let tokens = tokens.to_vec();
        Some((at, Triggered { tokens, skip }))
    }

    #[test]
    fn words_are_found_across_tokens() {
        let word = [Trigger::Word("<tool>".into())];
        assert_eq!(run(&word, &["say <t", "oo", "l>{"]), triggered(2, &[0, 1, 2], 4));
        assert_eq!(run(&word, &["say ", "<tool>"]), triggered(1, &[1], 0));
        assert_eq!(run(&word, &["<tool", "<tool", " >"]), None);
        // Characters of regular expressions are characters.
        assert_eq!(
            run(&[Trigger::Word("[a.b](".into())], &["[axb](", "[a.b]("]),
            triggered(1, &[1], 0)
        );
    }

    #[test]
    fn patterns_begin_at_their_group() {
        let pattern = [Trigger::Pattern("\\s*(?:so:)(\\{|\\[)".into())];
        assert_eq!(run(&pattern, &["  so:", "{"]), triggered(1, &[1], 0));
        let full = [Trigger::PatternFull("[\\s\\S]*?(<a>)[\\s\\S]*".into())];
        assert_eq!(run(&full, &["x\n", "y<", "a>b"]), triggered(2, &[1, 2], 1));
        assert_eq!(run(&[Trigger::PatternFull("ab+".into())], &["b", "ab"]), None);
        assert_eq!(
            run(&[Trigger::PatternFull("ab+".into())], &["a", "b"]),
            triggered(1, &[0, 1], 0)
        );
        assert_eq!(run(&[Trigger::Token(1)], &["a", "b"]), triggered(1, &[1], 0));
    }

    #[test]
    fn patterns_that_cost_too_much_are_refused() {
        for pattern in ["(", "(?=a)", "((((a{900}){900}){900}){900})", &"a".repeat(10_000)] {
            assert!(Triggers::new(&[Trigger::Pattern(pattern.into())]).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_long_text_is_read_once() {
        let triggers = Triggers::new(&[Trigger::Pattern("x(y|z)*?end[0-9]{3}".into())]).unwrap();
        let mut waiting = Waiting::new(&triggers);
        let started = std::time::Instant::now();
        for _ in 0..200_000 {
            assert_eq!(waiting.push(&triggers, 1, b"xyzyz and "), None);
        }
        // Reading all of it for every token would take hours.
        assert!(started.elapsed().as_secs() < 60);
    }
}
