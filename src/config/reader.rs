//! Walks a parsed TOML document and reports what does not fit, instead of stopping at it.
//!
//! The keys that a table may have are the ones it is asked for; [`Table::finish`] reports the rest.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::draft::Setting;
use super::suggest::nearest;
use super::value::{self, Fault};

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

    fn settle<T>(&self, key: &str, value: &Value<'i>, result: Result<T, Fault>) -> Option<Setting<T>> {
        let origin = Origin::File(value.span());
        match result {
            Ok(value) => Some(Setting::new(value, &origin)),
            Err(fault) => {
                let message = format!("`{key}` {}", fault.message);
                self.problems.push(Diagnostic::error(&origin, message).hint(fault.hint));
                None
            }
        }
    }

    /// A string that `parse` understands.
    pub fn text<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<Setting<T>> {
        let value = self.value(key)?;
        self.settle(key, value, parse_text(value.get_ref(), parse))
    }

    /// An array of strings that `parse` understands; those it does not are reported one by one.
    pub fn texts<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Setting<Vec<Setting<T>>>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            let mut fault = wrong_type("a list of strings", value.get_ref());
            if let DeValue::String(text) = value.get_ref() {
                fault.hint = Some(format!("write {key} = [{:?}]", &**text));
            }
            return self.settle(key, value, Err(fault));
        };
        let items = items
            .iter()
            .filter_map(|item| self.settle(key, item, parse_text(item.get_ref(), &parse)))
            .collect();
        self.settle(key, value, Ok(items))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str) -> Option<Setting<bool>> {
        let value = self.value(key)?;
        let result = match value.get_ref() {
            DeValue::Boolean(truth) => Ok(*truth),
            other => Err(wrong_type("true or false", other)),
        };
        self.settle(key, value, result)
    }

    /// A whole number within a range.
    pub fn integer<T: TryFrom<i64>>(&mut self, key: &'static str, range: &RangeInclusive<i64>) -> Option<Setting<T>> {
        let value = self.value(key)?;
        let result = match value.get_ref() {
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => value::within(number, range),
                Err(_) => Err(Fault {
                    message: format!("must be between {} and {}, but is {number}", range.start(), range.end()),
                    hint: None,
                }),
            },
            other => Err(number_fault(key, "a whole number", other, |text| {
                text.parse::<i64>().is_ok()
            })),
        };
        self.settle(key, value, result)
    }

    /// A number with or without decimals; ranges are the caller's business.
    pub fn float(&mut self, key: &'static str) -> Option<f32> {
        let value = self.value(key)?;
        let result = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .and_then(|number| number.to_string().parse().ok()),
            _ => None,
        };
        let result =
            result.ok_or_else(|| number_fault(key, "a number", value.get_ref(), |text| text.parse::<f32>().is_ok()));
        self.settle(key, value, result).map(|number| number.value)
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
                self.settle::<()>(key, value, Err(fault));
                None
            }
        }
    }

    /// The tables of an array of tables; `None` if the key is absent or no such array.
    pub fn tables(&mut self, key: &'static str, title: &'static str) -> Option<Vec<Table<'d, 'i>>> {
        let value = self.value(key)?;
        let hint = format!("write {title} on a line of its own, with two brackets on each side");
        let DeValue::Array(items) = value.get_ref() else {
            let mut fault = wrong_type("a list of tables", value.get_ref());
            fault.hint = Some(hint);
            self.settle::<()>(key, value, Err(fault));
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
                    self.settle::<()>(key, item, Err(fault));
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
                Some("model") => "did you mean `[[model]]`?".to_owned(),
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the keys of {} are {}", self.title, self.asked.join(", ")),
            };
            let message = format!("unknown key `{}` in {}", name.escape_debug(), self.title);
            self.problems
                .push(Diagnostic::error(&Origin::File(key.span()), message).hint(hint));
        }
    }
}

fn parse_text<T>(value: &DeValue<'_>, parse: impl Fn(&str) -> Result<T, Fault>) -> Result<T, Fault> {
    let number = match value {
        DeValue::String(text) => return parse(text),
        DeValue::Integer(number) => Some(number.as_str()),
        DeValue::Float(number) => Some(number.as_str()),
        _ => None,
    };
    let mut fault = wrong_type("a string", value);
    // The parser's own advice is the better one: a bare 16 lacks more than its quotes.
    fault.hint = number.map(|text| match parse(text) {
        Err(Fault { hint: Some(hint), .. }) => hint,
        _ => format!("put it in quotes: \"{text}\""),
    });
    Err(fault)
}

fn number_fault(key: &str, wanted: &str, value: &DeValue<'_>, is_number: impl Fn(&str) -> bool) -> Fault {
    let mut fault = wrong_type(wanted, value);
    if let DeValue::String(text) = value
        && is_number(text)
    {
        fault.hint = Some(format!("write it without quotes: {key} = {text}"));
    }
    fault
}

fn wrong_type(wanted: &str, value: &DeValue<'_>) -> Fault {
    let found = match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the whole number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    Fault {
        message: format!("must be {wanted}, but is {found}"),
        hint: None,
    }
}
