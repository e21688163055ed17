//! llama.cpp's grammar notation (GBNF), read as `grammars/README.md` there describes it.

use std::collections::HashMap;

use super::class::{Class, MAX_CHARACTER};
use super::error::GrammarError;
use super::vocabulary::Token;

/// The body of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// One character, of the class with this index.
    Class(u32),
    /// One token, or any token but this.
    Token {
        token: Token,
        negated: bool,
    },
    /// The rule with this index.
    Rule(u32),
    Sequence(Vec<Expression>),
    Choice(Vec<Expression>),
    /// At least, at most; `None` has no end.
    Repeat(Box<Expression>, u32, Option<u32>),
}

/// The rules of a grammar; `root` is among them, and all that are used are defined.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) names: Vec<String>,
    pub(super) bodies: Vec<Expression>,
    pub(super) classes: Vec<Class>,
    pub(super) root: u32,
}

const MAX_BYTES: usize = 2 << 20;
const MAX_RULES: usize = 50_000;
/// Brackets in brackets.
const MAX_DEPTH: usize = 100;
/// More than this is as good as no bound; llama.cpp draws the line at 2,000.
const MAX_REPEAT: u32 = 100_000;

/// Reads a grammar. `token_of` finds the token of a text such as `<think>`, or checks the id in `<[7]>`.
pub(super) fn parse(text: &str, token_of: &dyn Fn(TokenName<'_>) -> Option<Token>) -> Result<Rules, GrammarError> {
    if text.len() > MAX_BYTES {
        let size = format!("{} bytes, but at most {MAX_BYTES} are taken", text.len());
        return Err(GrammarError::TooLarge(size));
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        names: HashMap::new(),
        bodies: Vec::new(),
        classes: HashMap::new(),
        token_of,
    };
    parser.space(true);
    while parser.at < text.len() {
        parser.rule()?;
    }
    parser.finish()
}

/// How a grammar names a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenName<'t> {
    Id(u32),
    /// With its angle brackets.
    Text(&'t str),
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    names: HashMap<&'t str, u32>,
    bodies: Vec<Option<Expression>>,
    classes: HashMap<Class, u32>,
    token_of: &'t dyn Fn(TokenName<'_>) -> Option<Token>,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error<T>(&self, what: impl Into<String>) -> Result<T, GrammarError> {
        let line = self.text.as_bytes()[..self.at].iter().filter(|byte| **byte == b'\n');
        Err(GrammarError::Syntax {
            line: line.count() + 1,
            what: what.into(),
        })
    }

    /// What stands at the cursor, for messages.
    fn here(&self) -> String {
        match self.rest().chars().next() {
            None => "the end".into(),
            Some('\n' | '\r') => "the end of the line".into(),
            Some(_) => format!(
                "`{}`",
                self.rest()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(24)
                    .collect::<String>()
            ),
        }
    }

    fn take(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        if found {
            self.at += what.len();
        }
        found
    }

    fn space(&mut self, newlines: bool) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => self.at += 1,
                b'\r' | b'\n' if newlines => self.at += 1,
                b'#' => self.at += self.rest().find(['\r', '\n']).unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Result<&'t str, GrammarError> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .unwrap_or(rest.len());
        if length == 0 {
            return self.error(format!("a rule's name is expected, not {}", self.here()));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn id_of(&mut self, name: &'t str) -> Result<u32, GrammarError> {
        let next = u32::try_from(self.bodies.len()).unwrap_or(u32::MAX);
        let id = *self.names.entry(name).or_insert(next);
        if id == next {
            if self.bodies.len() >= MAX_RULES {
                return Err(GrammarError::TooLarge(format!("more than {MAX_RULES} rules")));
            }
            self.bodies.push(None);
        }
        Ok(id)
    }

    fn rule(&mut self) -> Result<(), GrammarError> {
        let name = self.name()?;
        let id = self.id_of(name)?;
        self.space(false);
        if !self.take("::=") {
            return self.error(format!("`::=` is expected, not {}", self.here()));
        }
        self.space(true);
        let body = self.choice(false)?;
        self.bodies[id as usize] = Some(body);
        if !matches!(self.peek(), None | Some(b'\r' | b'\n')) {
            return self.error(format!("{} is not expected here", self.here()));
        }
        self.space(true);
        Ok(())
    }

    fn choice(&mut self, nested: bool) -> Result<Expression, GrammarError> {
        let mut choices = vec![self.sequence(nested)?];
        while self.take("|") {
            self.space(true);
            choices.push(self.sequence(nested)?);
        }
        Ok(match choices.len() {
            1 => choices.swap_remove(0),
            _ => Expression::Choice(choices),
        })
    }

    fn sequence(&mut self, nested: bool) -> Result<Expression, GrammarError> {
        let mut items: Vec<Expression> = Vec::new();
        while let Some(byte) = self.peek() {
            let item = match byte {
                b'"' => self.literal()?,
                b'[' => self.class()?,
                b'.' => {
                    self.at += 1;
                    self.class_id(Class::new(vec![(0, MAX_CHARACTER)], false))
                }
                b'<' | b'!' => self.token()?,
                b'(' => self.group()?,
                b'*' | b'+' | b'?' | b'{' => {
                    let (least, most) = self.times(nested)?;
                    let Some(last) = items.pop() else {
                        return self.error("*, +, ? and {} must follow what they repeat");
                    };
                    items.push(Expression::Repeat(Box::new(last), least, most));
                    continue;
                }
                _ if byte.is_ascii_alphanumeric() || byte == b'-' => {
                    let name = self.name()?;
                    Expression::Rule(self.id_of(name)?)
                }
                _ => break,
            };
            items.push(item);
            self.space(nested);
        }
        Ok(match items.len() {
            1 => items.swap_remove(0),
            _ => Expression::Sequence(items),
        })
    }

    fn group(&mut self) -> Result<Expression, GrammarError> {
        if self.depth >= MAX_DEPTH {
            return Err(GrammarError::TooLarge(format!("brackets nest deeper than {MAX_DEPTH}")));
        }
        self.at += 1;
        self.space(true);
        self.depth += 1;
        let inner = self.choice(true)?;
        self.depth -= 1;
        if !self.take(")") {
            return self.error(format!("`)` is expected, not {}", self.here()));
        }
        Ok(inner)
    }

    fn literal(&mut self) -> Result<Expression, GrammarError> {
        self.at += 1;
        let mut characters = Vec::new();
        while !self.take("\"") {
            let character = self.character()?;
            characters.push(self.class_id(Class::new(vec![(character, character)], false)));
        }
        Ok(Expression::Sequence(characters))
    }

    fn class(&mut self) -> Result<Expression, GrammarError> {
        self.at += 1;
        let negated = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
            let low = self.character()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let high = if is_range {
                self.at += 1;
                self.character()?
            } else {
                low
            };
            ranges.push((low, high));
        }
        if ranges.is_empty() {
            return self.error("an empty class of characters");
        }
        Ok(self.class_id(Class::new(ranges, negated)))
    }

    fn class_id(&mut self, class: Class) -> Expression {
        let next = u32::try_from(self.classes.len()).unwrap_or(u32::MAX);
        Expression::Class(*self.classes.entry(class).or_insert(next))
    }

    fn character(&mut self) -> Result<u32, GrammarError> {
        let Some(first) = self.rest().chars().next() else {
            return self.error("the grammar ends inside of quotes or brackets");
        };
        self.at += first.len_utf8();
        if first != '\\' {
            return Ok(first.into());
        }
        let Some(escaped) = self.rest().chars().next() else {
            return self.error("the grammar ends after a backslash");
        };
        let digits = match escaped {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            't' | 'r' | 'n' | '\\' | '"' | '[' | ']' | '-' => {
                self.at += 1;
                return Ok(match escaped {
                    't' => '\t',
                    'r' => '\r',
                    'n' => '\n',
                    other => other,
                }
                .into());
            }
            _ => return self.error(format!("the escape `\\{escaped}` is not known")),
        };
        self.at += 1;
        let value = self.rest().get(..digits);
        let value = value.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match value.and_then(|text| u32::from_str_radix(text, 16).ok()) {
            Some(value) if value <= MAX_CHARACTER => {
                self.at += digits;
                Ok(value)
            }
            _ => self.error(format!(
                "`\\{escaped}` needs {digits} hexadecimal digits of a character"
            )),
        }
    }

    fn token(&mut self) -> Result<Expression, GrammarError> {
        let negated = self.take("!");
        let rest = self.rest();
        let length = rest.find('>').filter(|_| rest.starts_with('<'));
        let Some(length) = length else {
            return self.error(format!(
                "a token such as `<think>` or `<[7]>` is expected, not {}",
                self.here()
            ));
        };
        let text = &rest[..=length];
        let id = text.strip_prefix("<[").and_then(|text| text.strip_suffix("]>"));
        let name = id
            .and_then(|id| id.parse().ok())
            .map_or(TokenName::Text(text), TokenName::Id);
        let Some(token) = (self.token_of)(name) else {
            return self.error(format!("{} is not a token of this model", self.here()));
        };
        self.at += text.len();
        Ok(Expression::Token { token, negated })
    }

    fn times(&mut self, nested: bool) -> Result<(u32, Option<u32>), GrammarError> {
        let times = match self.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            _ => {
                self.at += 1;
                self.space(nested);
                let least = self.number()?;
                self.space(nested);
                let most = if self.take(",") {
                    self.space(nested);
                    let bounded = self.peek().is_some_and(|byte| byte.is_ascii_digit());
                    let most = if bounded { Some(self.number()?) } else { None };
                    self.space(nested);
                    most
                } else {
                    Some(least)
                };
                if self.peek() != Some(b'}') {
                    return self.error(format!("`}}` is expected, not {}", self.here()));
                }
                (least, most)
            }
        };
        self.at += 1;
        self.space(nested);
        if let (least, Some(most)) = times
            && most < least
        {
            return self.error(format!("{{{least},{most}}} ends below its beginning"));
        }
        Ok(times)
    }

    fn number(&mut self) -> Result<u32, GrammarError> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        match rest[..length].parse::<u32>() {
            Ok(number) if number <= MAX_REPEAT => {
                self.at += length;
                Ok(number)
            }
            Ok(_) => Err(GrammarError::TooLarge(format!("more than {MAX_REPEAT} repetitions"))),
            Err(_) if length > 0 => Err(GrammarError::TooLarge(format!("more than {MAX_REPEAT} repetitions"))),
            Err(_) => self.error(format!("a number is expected, not {}", self.here())),
        }
    }

    fn finish(self) -> Result<Rules, GrammarError> {
        let mut names = vec![String::new(); self.bodies.len()];
        for (name, id) in &self.names {
            names[*id as usize] = (*name).to_owned();
        }
        let root = *self.names.get("root").ok_or(GrammarError::NoRoot)?;
        let bodies = self.bodies.into_iter().zip(&names);
        let bodies = bodies.map(|(body, name)| body.ok_or_else(|| GrammarError::Undefined(name.clone())));
        let bodies = bodies.collect::<Result<Vec<_>, _>>()?;
        let mut classes: Vec<(Class, u32)> = self.classes.into_iter().collect();
        classes.sort_unstable_by_key(|(_, id)| *id);
        Ok(Rules {
            names,
            bodies,
            classes: classes.into_iter().map(|(class, _)| class).collect(),
            root,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Rules, GrammarError> {
        parse(text, &|name| match name {
            TokenName::Id(id) => Token::try_from(id).ok().filter(|id| *id < 100),
            TokenName::Text(text) => (text == "<think>").then_some(7),
        })
    }

    #[test]
    fn the_notation_is_llama_cpps() {
        for text in [
            "root ::= \"a\"",
            "# a comment\nroot ::= a | b # another\na ::= [a-z0-9_-]+\r\nb ::= \"\\x41\\u00e9\\U0001F600\\\"\\\\\"*\n\n",
            "root ::= (\n  a\n  | \"b\"\n)? \"c\"{2} \"d\"{1,} \"e\"{0,3} [^\\]\\-] .\na ::= <think> !<[9]>",
            "root ::=\n  \"a\" |\n  \"b\"\n",
            "root ::= \"\" | ",
        ] {
            assert!(read(text).is_ok(), "{text}: {:?}", read(text).err());
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, expect) in [
            ("", "no rule `root`"),
            ("a ::= \"b\"", "no rule `root`"),
            ("root ::= b", "uses rule `b`"),
            ("root = \"a\"", "line 1: `::=` is expected, not `= \"a\"`"),
            ("root ::= \"a\"\nb ::= \"c", "line 2: the grammar ends inside"),
            ("root ::= *", "must follow what they repeat"),
            ("root ::= (\"a\"", "`)` is expected, not the end"),
            ("root ::= \"\\q\"", "escape `\\q`"),
            ("root ::= \"\\x1\"", "2 hexadecimal digits"),
            ("root ::= \"\\U00110000\"", "8 hexadecimal digits"),
            ("root ::= []", "empty class"),
            ("root ::= \"a\"{3,2}", "ends below"),
            ("root ::= \"a\"{x}", "a number is expected"),
            ("root ::= \"a\"{99999999999}", "repetitions"),
            ("root ::= <nothing>", "not a token"),
            ("root ::= <[100]>", "not a token"),
            ("root ::= <", "a token such as"),
            ("root ::= \"a\" %", "`%` is not expected"),
        ] {
            let message = read(text).expect_err(text).to_string();
            assert!(message.contains(expect), "{text}: {message}");
        }
        assert!(read(&format!("root ::= {}", "(".repeat(100_000))).is_err());
        assert!(read(&"x".repeat(MAX_BYTES + 1)).is_err());
    }
}
