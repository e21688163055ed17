//! Walks a parsed TOML document and reports what does not fit, instead of stopping at it.
//!
//! The keys that a table may have are the ones it is asked for; [`Table::finish`] reports the rest.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::kind::{Kind, wrong_type};
use super::setting::Setting;
use super::suggest::nearest;
use super::value::Fault;

type Value<'i> = Spanned<DeValue<'i>>;

pub(super) struct Table<'d, 'i> {
    entries: &'d DeTable<'i>,
    /// Where to point if something is missing.
    pub origin: Origin,
    /// As the user would write it: `[server]`.
    title: &'static str,
    asked: Vec<&'static str>,
    problems: &'d Problems,
}

impl<'d, 'i> Table<'d, 'i> {
    pub fn root(document: &'d Spanned<DeTable<'i>>, problems: &'d Problems) -> Self {
        Self {
            entries: document.get_ref(),
            origin: Origin::File(0..0),
            title: "the top level",
            asked: Vec::new(),
            problems,
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Value<'i>> {
        self.asked.push(key);
        self.entries.get(key)
    }

    /// Where the value of a key stands.
    pub fn origin_of(&self, key: &str) -> Option<Origin> {
        self.entries.get(key).map(|value| Origin::File(value.span()))
    }

    /// Reports that a key is missing, unless it is there.
    pub fn require(&self, key: &str, hint: &str) {
        if !self.entries.contains_key(key) {
            let message = format!("{} has no `{key}`", self.title);
            self.problems
                .push(Diagnostic::error(&self.origin, message).hint(hint.to_owned()));
        }
    }

    /// Reports what is wrong with a value.
    fn report(&self, key: &str, origin: &Origin, fault: Fault) {
        let message = format!("`{key}` {}", fault.message);
        self.problems.push(Diagnostic::error(origin, message).hint(fault.hint));
    }

    /// The value of a key; `None` if it is absent or a mistake, which is reported.
    pub fn key<K: Kind>(&mut self, key: &'static str, kind: &K) -> Option<Setting<K::Value>> {
        let value = self.value(key)?;
        kind.read(key, value, &mut |origin, fault| self.report(key, &origin, fault))
    }

    /// A table below this one.
    pub fn table(&mut self, key: &'static str, title: &'static str) -> Option<Table<'d, 'i>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(entries) => Some(self.below(value, entries, title)),
            other => {
                let mut fault = wrong_type("a table", other);
                fault.hint = Some(match other {
                    DeValue::Array(_) => format!("write {title} with single brackets, and only once"),
                    _ => format!("write {title} on a line of its own, its keys below"),
                });
                self.report(key, &Origin::File(value.span()), fault);
                None
            }
        }
    }

    /// One table, or the tables of an array; `None` if the key is absent or neither.
    pub fn one_or_more(&mut self, key: &'static str, title: &'static str) -> Option<Vec<Table<'d, 'i>>> {
        let Some(value) = self.entries.get(key) else {
            self.asked.push(key);
            return None;
        };
        match value.get_ref() {
            DeValue::Table(_) => self.table(key, title).map(|table| vec![table]),
            _ => self.tables(key, title),
        }
    }

    /// The tables of an array of tables; `None` if the key is absent or no such array.
    pub fn tables(&mut self, key: &'static str, title: &'static str) -> Option<Vec<Table<'d, 'i>>> {
        let value = self.value(key)?;
        let hint = format!("write {title} on a line of its own, with two brackets on each side");
        let DeValue::Array(items) = value.get_ref() else {
            let mut fault = wrong_type("a list of tables", value.get_ref());
            fault.hint = Some(hint);
            self.report(key, &Origin::File(value.span()), fault);
            return None;
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(entries) => tables.push(self.below(item, entries, title)),
                other => {
                    let mut fault = wrong_type("a list of tables", other);
                    fault.message.push_str(" in it");
                    fault.message = fault.message.replacen("but is", "but has", 1);
                    fault.hint = Some(hint.clone());
                    self.report(key, &Origin::File(item.span()), fault);
                }
            }
        }
        Some(tables)
    }

    fn below(&self, value: &Value<'i>, entries: &'d DeTable<'i>, title: &'static str) -> Table<'d, 'i> {
        Table {
            entries,
            origin: Origin::File(value.span()),
            title,
            asked: Vec::new(),
            problems: self.problems,
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        for key in self.entries.keys() {
            let name = &**key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let hint = match nearest(name, self.asked.iter().copied()) {
                Some(table @ ("model" | "preset" | "key")) => format!("did you mean `[[{table}]]`?"),
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the keys of {} are {}", self.title, self.asked.join(", ")),
            };
            let message = format!("unknown key `{}` in {}", name.escape_debug(), self.title);
            self.problems
                .push(Diagnostic::error(&Origin::File(key.span()), message).hint(hint));
        }
    }
}
