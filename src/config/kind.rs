//! Kinds of values: how each is read from the file and from text, written, and described.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Number as Number64, Value as Json, json};
use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::Origin;
use super::setting::Setting;
use super::suggest::nearest;
use super::value::{self, Fault};

/// Takes note of what is wrong with a value, and where.
pub(super) type Report<'r> = &'r mut dyn FnMut(Origin, Fault);

/// A kind of value.
pub(super) trait Kind {
    type Value: Clone;

    /// From the file; mistakes are reported.
    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<Self::Value>>;

    /// From a variable or a flag.
    fn parse(&self, text: &str) -> Result<Self::Value, Fault>;

    /// As it stands in the file; `None` for no value.
    fn show(&self, value: &Self::Value) -> Option<Json>;

    /// What having no value means.
    fn absent(&self) -> &'static str {
        "none"
    }

    /// The JSON schema of a value.
    fn schema(&self) -> Json;

    /// Which values are possible, where the schema alone can tell.
    fn range(&self) -> Option<String> {
        None
    }
}

fn settle<T>(result: Result<T, Fault>, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<T>> {
    let origin = Origin::File(value.span());
    match result {
        Ok(value) => Some(Setting::new(value, &origin)),
        Err(fault) => {
            report(origin, fault);
            None
        }
    }
}

/// A string that is understood in a way of its own.
pub(super) struct Text<T> {
    pub parse: fn(&str) -> Result<T, Fault>,
    pub show: fn(&T) -> String,
}

impl<T: Clone> Kind for Text<T> {
    type Value = T;

    fn read(&self, _: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<T>> {
        settle(read_text(value.get_ref(), self.parse), value, report)
    }

    fn parse(&self, text: &str) -> Result<T, Fault> {
        (self.parse)(text)
    }

    fn show(&self, value: &T) -> Option<Json> {
        Some((self.show)(value).into())
    }

    fn schema(&self) -> Json {
        json!({"type": "string"})
    }
}

/// A list of strings; from variables with commas between them.
pub(super) struct List<T>(pub Text<T>);

impl<T: Clone> Kind for List<T> {
    type Value = Vec<T>;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<Vec<T>>> {
        let DeValue::Array(entries) = value.get_ref() else {
            let mut fault = wrong_type("a list of strings", value.get_ref());
            if let DeValue::String(text) = value.get_ref() {
                fault.hint = Some(format!("write {key} = [{:?}]", &**text));
            }
            return settle(Err(fault), value, report);
        };
        // Those that are not understood are reported one by one.
        let read = entries
            .iter()
            .filter_map(|entry| settle(read_text(entry.get_ref(), self.0.parse), entry, report));
        let (values, items) = read.filter_map(|item| Some((item.value?, item.origin))).unzip();
        let mut list = Setting::new(values, &Origin::File(value.span()));
        list.items = items;
        Some(list)
    }

    fn parse(&self, text: &str) -> Result<Vec<T>, Fault> {
        text.split(',').map(|item| (self.0.parse)(item.trim())).collect()
    }

    fn show(&self, value: &Vec<T>) -> Option<Json> {
        Some(value.iter().map(self.0.show).collect())
    }

    fn schema(&self) -> Json {
        json!({"type": "array", "items": self.0.schema()})
    }
}

/// One of a few words. `hint` is for those who guess far off.
pub(super) struct Choice<T: 'static, const N: usize> {
    pub words: [(&'static str, T); N],
    pub hint: Option<&'static str>,
}

impl<T: Copy + PartialEq, const N: usize> Choice<T, N> {
    fn names(&self) -> [&'static str; N] {
        self.words.each_ref().map(|(name, _)| *name)
    }

    /// `"a", "b" or "c"`; longer lists read better as such.
    fn wanted(&self) -> String {
        let quoted = self.names().map(|name| format!("{name:?}"));
        match quoted.split_last() {
            Some((last, rest @ [_, ..])) if N <= 4 => format!("{} or {last}", rest.join(", ")),
            _ => format!("one of {}", quoted.join(", ")),
        }
    }
}

impl<T: Copy + PartialEq, const N: usize> Kind for Choice<T, N> {
    type Value = T;

    fn read(&self, _: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<T>> {
        settle(read_text(value.get_ref(), |text| self.parse(text)), value, report)
    }

    fn parse(&self, text: &str) -> Result<T, Fault> {
        let found = self.words.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| Fault {
            message: format!("must be {}, but is {text:?}", self.wanted()),
            hint: nearest(text, self.names())
                .map(|meant| format!("did you mean {meant:?}?"))
                .or_else(|| self.hint.map(str::to_owned)),
        })
    }

    fn show(&self, value: &T) -> Option<Json> {
        let found = self.words.iter().find(|(_, known)| known == value);
        found.map(|(name, _)| (*name).into())
    }

    fn schema(&self) -> Json {
        json!({"type": "string", "enum": self.names().as_slice()})
    }

    fn range(&self) -> Option<String> {
        Some(self.names().map(|name| format!("`{name:?}`")).join(", "))
    }
}

/// A whole number within a range.
pub(super) struct Whole<T> {
    range: RangeInclusive<i64>,
    into: fn(i64) -> Option<T>,
}

/// A whole number within a range that `T` holds.
pub(super) fn whole<T: TryFrom<i64>>(range: RangeInclusive<i64>) -> Whole<T> {
    Whole {
        range,
        into: |number| T::try_from(number).ok(),
    }
}

impl<T> Whole<T> {
    fn within(&self, number: i64) -> Result<T, Fault> {
        let value = (self.into)(number).filter(|_| self.range.contains(&number));
        value.ok_or_else(|| self.outside(&number))
    }

    fn outside(&self, number: &dyn Display) -> Fault {
        let (first, last) = (self.range.start(), self.range.end());
        Fault {
            message: format!("must be between {first} and {last}, but is {number}"),
            hint: None,
        }
    }
}

impl<T: Copy + TryInto<i64>> Kind for Whole<T> {
    type Value = T;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<T>> {
        let result = match value.get_ref() {
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => self.within(number),
                Err(_) => Err(self.outside(number)),
            },
            other => Err(number_fault(key, "a whole number", other, |text| {
                text.parse::<i64>().is_ok()
            })),
        };
        settle(result, value, report)
    }

    fn parse(&self, text: &str) -> Result<T, Fault> {
        let number = text.trim().parse().map_err(|_| Fault {
            message: format!("must be a whole number, but is {text:?}"),
            hint: Some(format!("{} to {} are possible", self.range.start(), self.range.end())),
        })?;
        self.within(number)
    }

    fn show(&self, value: &T) -> Option<Json> {
        let number: i64 = (*value).try_into().ok()?;
        Some(number.into())
    }

    fn schema(&self) -> Json {
        json!({"type": "integer", "minimum": self.range.start(), "maximum": self.range.end()})
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", self.range.start(), self.range.end()))
    }
}

/// A finite number with or without decimals; ranges are the caller's business.
pub(super) struct Number;

impl Number {
    fn finite(&self, number: f32) -> Result<f32, Fault> {
        if number.is_finite() {
            return Ok(number);
        }
        Err(Fault {
            message: format!("must be a finite number, but is {number}"),
            hint: None,
        })
    }
}

impl Kind for Number {
    type Value = f32;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<f32>> {
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .and_then(|number| number.to_string().parse().ok()),
            _ => None,
        };
        let is_number = |text: &str| text.parse::<f32>().is_ok();
        let result = match number {
            Some(number) => self.finite(number),
            None => Err(number_fault(key, "a number", value.get_ref(), is_number)),
        };
        settle(result, value, report)
    }

    fn parse(&self, text: &str) -> Result<f32, Fault> {
        let number = text.trim().parse().map_err(|_| Fault {
            message: format!("must be a number, but is {text:?}"),
            hint: None,
        })?;
        self.finite(number)
    }

    fn show(&self, value: &f32) -> Option<Json> {
        Some((*value).into())
    }

    fn schema(&self) -> Json {
        json!({"type": "number"})
    }
}

/// A number from the first to the second.
pub(super) struct Between(pub f32, pub f32);

impl Between {
    fn check(&self, number: f32) -> Result<f32, Fault> {
        let Self(least, most) = *self;
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        Err(Fault {
            message: format!("must be from {least} to {most}, but is {number}"),
            hint: None,
        })
    }
}

impl Kind for Between {
    type Value = f32;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<f32>> {
        let number = Number.read(key, value, report)?.get().copied()?;
        settle(self.check(number), value, report)
    }

    fn parse(&self, text: &str) -> Result<f32, Fault> {
        Number.parse(text).and_then(|number| self.check(number))
    }

    fn show(&self, value: &f32) -> Option<Json> {
        Number.show(value)
    }

    fn schema(&self) -> Json {
        json!({"type": "number", "minimum": self.0, "maximum": self.1})
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", self.0, self.1))
    }
}

/// `true` or `false`.
pub(super) struct Truth;

impl Kind for Truth {
    type Value = bool;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<bool>> {
        let result = match value.get_ref() {
            DeValue::Boolean(truth) => Ok(*truth),
            other => {
                let mut fault = wrong_type("true or false", other);
                if let DeValue::String(text) = other
                    && value::boolean(text).is_ok()
                {
                    fault.hint = Some(format!("write it without quotes: {key} = {text}"));
                }
                Err(fault)
            }
        };
        settle(result, value, report)
    }

    fn parse(&self, text: &str) -> Result<bool, Fault> {
        value::boolean(text)
    }

    fn show(&self, value: &bool) -> Option<Json> {
        Some((*value).into())
    }

    fn schema(&self) -> Json {
        json!({"type": "boolean"})
    }
}

/// A table of values for others to understand, or its JSON in a string.
pub(super) struct Object {
    pub check: fn(&Map<String, Json>) -> Result<(), Fault>,
}

impl Object {
    fn checked(&self, value: Json) -> Result<Map<String, Json>, Fault> {
        match value {
            Json::Object(entries) => (self.check)(&entries).map(|()| entries),
            _ => Err(Fault {
                message: "must be a table, or a JSON object in a string".to_owned(),
                hint: None,
            }),
        }
    }
}

impl Kind for Object {
    type Value = Map<String, Json>;

    fn read(&self, _: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<Self::Value>> {
        let result = match value.get_ref() {
            DeValue::String(text) => self.parse(text),
            table @ DeValue::Table(_) => self.checked(json_of(table)),
            other => Err(wrong_type("a table, or a JSON object in a string", other)),
        };
        settle(result, value, report)
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Fault> {
        let value = serde_json::from_str(text).map_err(|error| Fault {
            message: format!("must be a JSON object, but the string is not valid JSON: {error}"),
            hint: None,
        })?;
        self.checked(value)
    }

    fn show(&self, value: &Self::Value) -> Option<Json> {
        let value = Json::Object(value.clone());
        // A TOML file has no null.
        Some(if has_null(&value) {
            value.to_string().into()
        } else {
            value
        })
    }

    fn schema(&self) -> Json {
        json!({"type": ["object", "string"]})
    }
}

fn has_null(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Array(items) => items.iter().any(has_null),
        Json::Object(entries) => entries.values().any(has_null),
        _ => false,
    }
}

/// The same value; dates become strings, and numbers that JSON does not have too.
fn json_of(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => (**text).into(),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.into(),
            Err(_) => number.to_string().into(),
        },
        DeValue::Float(number) => {
            let finite = number.as_str().parse().ok().and_then(Number64::from_f64);
            finite.map_or_else(|| number.to_string().into(), Json::Number)
        }
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json_of(item.get_ref())).collect(),
        DeValue::Table(entries) => entries
            .iter()
            .map(|(key, value)| ((**key.get_ref()).to_owned(), json_of(value.get_ref())))
            .collect(),
    }
}

/// A key that may have no value; the text says what that means.
pub(super) struct Maybe<K>(pub K, pub &'static str);

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<Self::Value>> {
        Some(self.0.read(key, value, report)?.map(Some))
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Fault> {
        self.0.parse(text).map(Some)
    }

    fn show(&self, value: &Self::Value) -> Option<Json> {
        self.0.show(value.as_ref()?)
    }

    fn absent(&self) -> &'static str {
        self.1
    }

    fn schema(&self) -> Json {
        self.0.schema()
    }

    fn range(&self) -> Option<String> {
        self.0.range()
    }
}

/// A key that hearth chooses a value for unless one is given: `"auto"`.
pub(super) struct Auto<K>(pub K);

const AUTO: &str = "auto";

impl<K: Kind> Kind for Auto<K> {
    type Value = Option<K::Value>;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<Self::Value>> {
        match value.get_ref() {
            DeValue::String(text) if text == AUTO => Some(Setting::new(None, &Origin::File(value.span()))),
            _ => Some(self.0.read(key, value, report)?.map(Some)),
        }
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Fault> {
        if text == AUTO {
            return Ok(None);
        }
        self.0.parse(text).map(Some)
    }

    fn show(&self, value: &Self::Value) -> Option<Json> {
        match value {
            Some(value) => self.0.show(value),
            None => Some(AUTO.into()),
        }
    }

    fn schema(&self) -> Json {
        json!({"anyOf": [{"const": AUTO}, self.0.schema()]})
    }

    fn range(&self) -> Option<String> {
        self.0.range()
    }
}

fn read_text<T>(value: &DeValue<'_>, parse: impl Fn(&str) -> Result<T, Fault>) -> Result<T, Fault> {
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

pub(super) fn wrong_type(wanted: &str, value: &DeValue<'_>) -> Fault {
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
