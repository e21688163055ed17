//! A schema made ready for llama.cpp's converter.

use std::collections::{HashSet, VecDeque};

use serde_json::{Map, Value};

use super::error::GrammarError;
use super::pattern::rewrite;
use super::schema::{check_schema, target};
use super::strict;

/// The schema as the converter understands most of it: its patterns are rewritten. With `strict`, an answer to its grammar
/// always fits the schema.
///
/// # Errors
/// Says what is wrong and where, or which bound is exceeded; with `strict`, names a keyword that the grammar would not enforce.
pub fn prepare_schema(schema: &Value, strict: bool) -> Result<Value, GrammarError> {
    check_schema(schema)?;
    let places = places(schema)?;
    let mut prepared = schema.clone();
    for Place { fields, steps } in &places {
        if strict {
            let path = format!("#/{}", steps.join("/"));
            strict::check(schema, fields, path.trim_end_matches('/'))?;
        }
        let pattern = fields.get("pattern").and_then(Value::as_str);
        if let Some(Ok(pattern)) = pattern.map(rewrite)
            && let Some(place) = at(&mut prepared, steps)
        {
            place["pattern"] = pattern.into();
        }
    }
    Ok(prepared)
}

/// A schema within a schema.
struct Place<'s> {
    fields: &'s Map<String, Value>,
    /// The keys and indexes that lead there.
    steps: Vec<String>,
}

/// All schemas that the converter reads, those behind references included, each of them once; the outermost come first.
fn places(root: &Value) -> Result<Vec<Place<'_>>, GrammarError> {
    let mut places = Vec::new();
    let mut seen: HashSet<*const Value> = HashSet::new();
    let mut open = VecDeque::from([(root, Vec::new())]);
    while let Some((schema, steps)) = open.pop_front() {
        let Some(fields) = schema.as_object() else { continue };
        if !seen.insert(schema) {
            continue;
        }
        let mut push = |schema, more: &[&str]| {
            let more = more.iter().map(|step| (*step).to_owned());
            open.push_back((schema, steps.iter().cloned().chain(more).collect()));
        };
        for key in [
            "properties",
            "items",
            "prefixItems",
            "additionalProperties",
            "oneOf",
            "anyOf",
            "allOf",
        ] {
            match fields.get(key) {
                Some(Value::Object(schemas)) if key == "properties" => {
                    schemas.iter().for_each(|(name, schema)| push(schema, &[key, name]));
                }
                Some(Value::Array(schemas)) => {
                    let schemas = schemas.iter().enumerate();
                    schemas.for_each(|(index, schema)| push(schema, &[key, &index.to_string()]));
                }
                Some(schema) => push(schema, &[key]),
                None => {}
            }
        }
        if let Some(reference) = fields.get("$ref") {
            let (reference, schema) = target(root, reference, "#")?;
            let names = reference.trim_start_matches("#/").split('/');
            open.push_back((schema, names.map(str::to_owned).collect()));
        }
        places.push(Place { fields, steps });
    }
    Ok(places)
}

fn at<'v>(value: &'v mut Value, steps: &[String]) -> Option<&'v mut Value> {
    steps.iter().try_fold(value, |value, step| match value {
        Value::Object(fields) => fields.get_mut(step),
        Value::Array(items) => step.parse().ok().and_then(|index: usize| items.get_mut(index)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_patterns_of_schemas_are_rewritten() {
        let schema = json!({"properties": {
            "pattern": {"pattern": "^[a]$"},
            "b": {"enum": [{"pattern": "^[a]$"}]},
            "c": {"pattern": "^(?=a)$"},
            "d": {"$ref": "#/x/0/a~1b"},
        }, "x": [{"a~1b": {"pattern": "^[b]$"}}]});
        let prepared = prepare_schema(&schema, false).unwrap();
        assert_eq!(prepared["properties"]["pattern"]["pattern"], "^([a-a])$");
        assert_eq!(prepared["x"][0]["a~1b"]["pattern"], "^([b-b])$");
        for same in ["/properties/b", "/properties/c", "/properties/d"] {
            assert_eq!(prepared.pointer(same), schema.pointer(same));
        }
    }

    #[test]
    fn strict_reads_what_is_referred_to() {
        let strict = |schema| prepare_schema(&schema, true).map_err(|error| error.to_string());
        for (schema, expect) in [
            (
                json!({"$ref": "#/x/foo", "x": {"foo": {"type": "integer", "multipleOf": 3}}}),
                "at #/x/foo: `multipleOf`",
            ),
            (
                json!({"allOf": [{"maxProperties": 3, "properties": {}}]}),
                "at #/allOf/0: `maxProperties`",
            ),
            (json!({"minimum": 1.5, "type": "number"}), "at #: `minimum`"),
        ] {
            let message = strict(schema).unwrap_err();
            assert!(message.contains(expect), "{message}");
        }
        // What nothing refers to is not part of it.
        assert!(strict(json!({"type": "string", "$defs": {"a": {"multipleOf": 3}}})).is_ok());
        // Two names of one place, which llama.cpp's converter and JSON pointers read differently.
        let knot = json!({"allOf": [{"$ref": "#/$defs/a~1b"}], "$defs": {
            "a/b": {"$ref": "#/$defs/a~1b"}, "a~1b": {"properties": {}}}});
        assert!(strict(knot).is_ok());
    }
}
