//! One table of the file. The keys that are asked for are the keys that exist: what else stands there is a mistake.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::Mistakes;

pub(super) struct Section<'s, 'i, 't> {
    name: &'s str,
    table: &'s DeTable<'i>,
    span: Range<usize>,
    known: RefCell<BTreeSet<&'static str>>,
    mistakes: &'s RefCell<Mistakes<'t>>,
}

/// A value with its place.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<'s, 'i, 't> Section<'s, 'i, 't> {
    pub(super) fn new(
        name: &'s str,
        table: &'s DeTable<'i>,
        span: Range<usize>,
        mistakes: &'s RefCell<Mistakes<'t>>,
    ) -> Self {
        Self {
            name,
            table,
            span,
            known: RefCell::new(BTreeSet::new()),
            mistakes,
        }
    }

    pub(super) fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// The value of a key, whatever it is.
    pub(super) fn get(&self, key: &'static str) -> Option<&'s Spanned<DeValue<'i>>> {
        self.known.borrow_mut().insert(key);
        self.table.get(key)
    }

    pub(super) fn mistake(&self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.borrow_mut().at(span, message, Some(hint.into()));
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let found = value.get_ref().type_str();
        self.mistake(
            &value.span(),
            format!("`{key}` is of type {found}"),
            format!("write {wanted}"),
        );
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Found<&'s str>> {
        let found = self.get(key)?;
        match found.get_ref().as_str() {
            Some(value) => Some(Found {
                value,
                span: found.span(),
            }),
            None => {
                self.wrong_type(key, found, &format!("a text: {key} = \"...\""));
                None
            }
        }
    }

    /// A text that `read` turns into something else.
    pub(super) fn parsed<T>(&self, key: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key)?;
        match read(text.value) {
            Ok(value) => Some(value),
            Err(problem) => {
                let (what, hint) = problem
                    .split_once("; ")
                    .unwrap_or((&problem, "see docs/configuration.md"));
                self.mistake(&text.span, format!("`{key}`: {what}"), hint);
                None
            }
        }
    }

    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<Found<u32>> {
        let found = self.get(key)?;
        let Some(integer) = found.get_ref().as_integer() else {
            self.wrong_type(
                key,
                found,
                &format!("a whole number from {} to {}", range.start(), range.end()),
            );
            return None;
        };
        let digits = integer.as_str().replace('_', "");
        match u32::from_str_radix(&digits, integer.radix()) {
            Ok(value) if range.contains(&value) => Some(Found {
                value,
                span: found.span(),
            }),
            _ => {
                self.mistake(
                    &found.span(),
                    format!("`{key}` is {digits}"),
                    format!("it must be from {} to {}", range.start(), range.end()),
                );
                None
            }
        }
    }

    pub(super) fn texts(&self, key: &'static str) -> Vec<Found<&'s str>> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let Some(array) = found.get_ref().as_array() else {
            self.wrong_type(key, found, &format!("a list of texts: {key} = [\"...\"]"));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for entry in array.iter() {
            match entry.get_ref().as_str() {
                Some(value) => texts.push(Found {
                    value,
                    span: entry.span(),
                }),
                None => self.wrong_type(key, entry, "a text"),
            }
        }
        texts
    }

    /// The table of a key.
    pub(super) fn table(&self, key: &'static str) -> Option<(&'s DeTable<'i>, Range<usize>)> {
        let found = self.get(key)?;
        match found.get_ref().as_table() {
            Some(table) => Some((table, found.span())),
            None => {
                self.wrong_type(key, found, &format!("a table: [{key}]"));
                None
            }
        }
    }

    /// Reports the keys that nobody asked for, and returns those that were.
    pub(super) fn finish(self) -> BTreeSet<&'static str> {
        let known = self.known.into_inner();
        for (key, _) in self.table {
            if !known.contains(key.get_ref().as_ref()) {
                unknown_key(&mut self.mistakes.borrow_mut(), self.name, key, &known);
            }
        }
        known
    }
}

/// Notes a key that does not exist, with the one that may be meant.
pub(super) fn unknown_key<'k>(
    mistakes: &mut Mistakes<'_>,
    section: &str,
    key: &Spanned<impl AsRef<str>>,
    known: impl IntoIterator<Item = &'k &'k str> + Clone,
) {
    let name = key.get_ref().as_ref();
    let hint = match similar(name, known.clone()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => {
            let known: Vec<&str> = known.into_iter().copied().collect();
            format!("known keys: {}", known.join(", "))
        }
    };
    mistakes.at(&key.span(), format!("unknown key `{name}` in {section}"), Some(hint));
}

/// The known name that is most like `name`, if one is.
pub(super) fn similar<'k>(name: &str, known: impl IntoIterator<Item = &'k &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}
