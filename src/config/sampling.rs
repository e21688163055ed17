//! The keys of `[model.sampling]`: the fields of [`SamplingOverrides`], of which its own schema tells.

use std::sync::LazyLock;

use schemars::schema_for;
use serde_json::{Map, Value as Json};

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::kind::{List, Number, Text, whole};
use super::reader::Table;
use super::section::Entry;
use crate::sampling::SamplingOverrides;

/// Sampling defaults of a model, with the table that they come from.
#[derive(Debug, Clone)]
pub(super) struct PartialSampling {
    pub values: SamplingOverrides,
    pub origin: Origin,
}

impl Default for PartialSampling {
    fn default() -> Self {
        Self::default_of(SamplingOverrides::default())
    }
}

/// The table of these keys as a JSON schema.
pub(super) static SCHEMA: LazyLock<Json> = LazyLock::new(|| schema_for!(SamplingOverrides).to_value());

impl PartialSampling {
    pub fn default_of(values: SamplingOverrides) -> Self {
        Self {
            values,
            origin: Origin::Default,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as all tables")]
    pub fn build(&self) -> Option<SamplingOverrides> {
        Some(self.values.clone())
    }

    /// What the file says; mistakes are reported.
    pub fn read(mut table: Table<'_, '_>, problems: &Problems) -> Self {
        let mut given = Map::new();
        for (name, property) in SCHEMA["properties"].as_object().into_iter().flatten() {
            let Some(value) = read_key(&mut table, name, property) else {
                continue;
            };
            // Alone, so that what a field's type refuses has a place.
            let alone: Map<String, Json> = [(name.clone(), value.clone())].into_iter().collect();
            match serde_json::from_value::<SamplingOverrides>(alone.into()) {
                Ok(_) => {
                    given.insert(name.clone(), value);
                }
                Err(error) => {
                    let origin = table.origin_of(name).unwrap_or(table.origin.clone());
                    problems.push(Diagnostic::error(&origin, format!("`{name}`: {error}")));
                }
            }
        }
        let values: SamplingOverrides = serde_json::from_value(given.into()).unwrap_or_default();
        for (field, message) in values.problems() {
            let origin = table.origin_of(field).unwrap_or(table.origin.clone());
            problems.push(Diagnostic::error(&origin, message));
        }
        let origin = table.origin.clone();
        table.finish();
        Self { values, origin }
    }

    /// The keys that have a value.
    pub fn entries(&self) -> Vec<Entry<'_>> {
        // By way of text: 0.7 must not become 0.699999988.
        let values: Map<String, Json> = serde_json::to_string(&self.values)
            .and_then(|text| serde_json::from_str(&text))
            .unwrap_or_default();
        let names = SCHEMA["properties"].as_object().into_iter().flatten();
        let entry = |(name, _): (&'static String, _)| {
            Some(Entry {
                key: name.as_str(),
                value: Ok(values.get(name)?.clone()),
                origin: &self.origin,
            })
        };
        names.filter_map(entry).collect()
    }
}

fn read_key(table: &mut Table<'_, '_>, name: &'static str, property: &Json) -> Option<Json> {
    const TEXT: Text<String> = Text {
        parse: |text| Ok(text.to_owned()),
        show: String::clone,
    };
    // Fields are optional: a type is itself or null.
    let is = |kind: &str| property["type"] == kind || property["type"][0] == kind;
    if is("number") {
        return table.key(name, &Number)?.value.map(Json::from);
    }
    if is("integer") {
        let range = match property["format"].as_str() {
            Some("uint32") => 0..=u32::MAX.into(),
            _ => i32::MIN.into()..=i32::MAX.into(),
        };
        return table.key(name, &whole::<i64>(range))?.value.map(Json::from);
    }
    table.key(name, &List(TEXT))?.value.map(Json::from)
}
