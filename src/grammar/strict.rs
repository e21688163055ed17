//! Which schemas llama.cpp's converter enforces in full.
//!
//! It passes over what it does not know: an answer may then break the schema. Where a request says `strict`, it is refused
//! instead. Follows `build_node` of llama.cpp's common/json-schema.cpp.

use serde_json::{Map, Value};

use super::error::GrammarError;
use super::pattern::rewrite;
use super::schema::{target, wrong};

const OBJECT: &[&str] = &[
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedProperties",
];
const ARRAY: &[&str] = &[
    "items",
    "prefixItems",
    "additionalItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
];
const STRING: &[&str] = &["pattern", "minLength", "maxLength"];
const NUMBER: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
/// These speak about values of all types.
const ANY: &[&str] = &[
    "$ref",
    "oneOf",
    "anyOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "$dynamicRef",
];

type Fields = Map<String, Value>;

/// References that `allOf` follows to come to properties, one after the other.
const MAX_REFERENCES: usize = 16;

/// Checks one schema by itself: those within it are checked on their own.
///
/// # Errors
/// Names the keyword that is not enforced.
pub(super) fn check(root: &Value, fields: &Fields, path: &str) -> Result<(), GrammarError> {
    if let Some(alone) = ["$ref", "oneOf", "anyOf"]
        .into_iter()
        .find(|key| fields.contains_key(*key))
    {
        return only(fields, &[&[alone]], &[ANY, OBJECT, ARRAY, STRING, NUMBER], path);
    }
    if fields.contains_key("const") || fields.contains_key("enum") {
        return only(fields, &[], &[ANY, OBJECT, ARRAY, STRING, NUMBER], path);
    }
    let types: Vec<&str> = match fields.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return untyped(root, fields, path),
    };
    for kind in types {
        match kind {
            "object" if !names_properties(fields) && fields.contains_key("allOf") => all_of(root, fields, path)?,
            "object" => object(fields, path)?,
            "array" => array(fields, path)?,
            "string" => string(fields, path)?,
            "integer" => integer(fields, path)?,
            "number" => only(fields, &[], &[ANY, NUMBER], path)?,
            _ => only(fields, &[], &[ANY], path)?,
        }
    }
    Ok(())
}

/// Whether the converter takes the schema for one of an object by its own fields.
fn names_properties(fields: &Fields) -> bool {
    let additional = fields.get("additionalProperties");
    fields.contains_key("properties") || additional.is_some_and(|additional| *additional != Value::Bool(true))
}

/// Without a type, what is there says what is meant; of other types it forbids nothing.
fn untyped(root: &Value, fields: &Fields, path: &str) -> Result<(), GrammarError> {
    let has = |keys: &[&str]| keys.iter().any(|key| fields.contains_key(*key));
    if names_properties(fields) {
        object(fields, path)
    } else if has(&["allOf"]) {
        all_of(root, fields, path)
    } else if has(&["items", "prefixItems"]) {
        array(fields, path)
    } else if has(STRING) {
        string(fields, path)
    } else {
        only(fields, &[], &[ANY, OBJECT, ARRAY, STRING, NUMBER], path)
    }
}

fn object(fields: &Fields, path: &str) -> Result<(), GrammarError> {
    only(
        fields,
        &[&["properties", "required", "additionalProperties"]],
        &[ANY, OBJECT],
        path,
    )?;
    let properties = fields.get("properties").and_then(Value::as_object);
    let required = fields.get("required").and_then(Value::as_array);
    let unnamed = required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|name| !properties.is_some_and(|properties| properties.contains_key(*name)));
    match unnamed {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(100).collect();
            Err(wrong(
                path,
                format!("`required` names `{name}`, which is not among the `properties`"),
            ))
        }
    }
}

fn array(fields: &Fields, path: &str) -> Result<(), GrammarError> {
    let tuple = match fields.get("items") {
        None => fields.contains_key("prefixItems"),
        Some(items) => items.is_array(),
    };
    let enforced: &[&str] = match (tuple, fields.contains_key("items")) {
        (true, true) => &["items"],
        (true, false) => &["prefixItems"],
        (false, _) => &["items", "minItems", "maxItems"],
    };
    only(fields, &[enforced], &[ANY, ARRAY], path)
}

fn string(fields: &Fields, path: &str) -> Result<(), GrammarError> {
    let Some(pattern) = fields.get("pattern").and_then(Value::as_str) else {
        let format = fields.get("format").and_then(Value::as_str).unwrap_or_default();
        let known = matches!(format, "date" | "time" | "date-time") || format.starts_with("uuid");
        let enforced: &[&str] = if known { &[] } else { &["minLength", "maxLength"] };
        return only(fields, &[enforced], &[ANY, STRING], path);
    };
    if let Err(what) = rewrite(pattern) {
        return Err(wrong(path, format!("`pattern` cannot be enforced: {what}")));
    }
    only(fields, &[&["pattern"]], &[ANY, STRING], path)
}

fn integer(fields: &Fields, path: &str) -> Result<(), GrammarError> {
    let either = |first, second| if fields.contains_key(first) { first } else { second };
    let enforced = [
        either("minimum", "exclusiveMinimum"),
        either("maximum", "exclusiveMaximum"),
    ];
    only(fields, &[&enforced], &[ANY, NUMBER], path)
}

/// Properties of all, or values that all have.
fn all_of(root: &Value, fields: &Fields, path: &str) -> Result<(), GrammarError> {
    only(fields, &[&["allOf"]], &[ANY, OBJECT], path)?;
    for mut part in fields.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = part.get("$ref") else { break };
            part = target(root, reference, path)?.1;
        }
        if part.get("properties").is_none() && part.get("enum").is_none() {
            return Err(wrong(
                path,
                "`allOf` is enforced for objects with `properties` and for `enum` only",
            ));
        }
    }
    Ok(())
}

/// Refuses what is of these families and not enforced.
fn only(fields: &Fields, enforced: &[&[&str]], families: &[&[&str]], path: &str) -> Result<(), GrammarError> {
    let asks = |key: &&&str| {
        fields
            .get(**key)
            .is_some_and(|value| **key != "uniqueItems" || *value != Value::Bool(false))
    };
    let lost = families
        .iter()
        .flat_map(|family| family.iter())
        .find(|key| asks(key) && !enforced.iter().any(|enforced| enforced.contains(*key)));
    match lost {
        None => Ok(()),
        Some(key) => Err(wrong(
            path,
            format!("`{key}` is not enforced here, which `strict` asks for; leave out either of them"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::prepare_schema;

    #[test]
    fn what_is_enforced_passes() {
        for schema in [
            json!({"type": "object", "properties": {"a": {"type": ["string", "null"], "maxLength": 3}, "b": {"$ref": "#/$defs/c"}},
                "required": ["a"], "additionalProperties": false, "$defs": {"c": {"enum": ["x"], "title": "C"}}}),
            json!({"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": false}),
            json!({"type": "string", "pattern": r"^\d+$", "description": "not"}),
            json!({"type": "object", "properties": {"not": {"type": "boolean"}, "pattern": {"type": "number"}}}),
            json!({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "title": "t", "default": null}),
            json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"properties": {"y": {"const": 3}}}}}),
            json!({"type": "array", "prefixItems": [{"type": "boolean"}]}),
            json!({"type": "integer", "maxLength": 3}),
        ] {
            assert!(prepare_schema(&schema, true).is_ok(), "{schema}");
        }
    }

    #[test]
    fn what_is_passed_over_is_named() {
        for (schema, expect) in [
            (json!({"type": "number", "minimum": 0}), "at #: `minimum` is not"),
            (
                json!({"properties": {"a": {"multipleOf": 3, "type": "integer"}}}),
                "#/properties/a: `multipleOf`",
            ),
            (json!({"type": "array", "uniqueItems": true}), "`uniqueItems`"),
            (json!({"items": {"not": {"type": "string"}}}), "#/items: `not`"),
            (
                json!({"type": "object", "patternProperties": {"a": {}}}),
                "`patternProperties`",
            ),
            (
                json!({"type": "object", "properties": {"a": {}}, "required": ["b"]}),
                "`required` names `b`",
            ),
            (
                json!({"anyOf": [{"type": "null"}], "properties": {}}),
                "`properties` is not",
            ),
            (
                json!({"type": "string", "pattern": "^a+$", "maxLength": 3}),
                "`maxLength`",
            ),
            (
                json!({"type": "string", "pattern": "^(?!a)$"}),
                "`pattern` cannot be enforced: look-around",
            ),
            (
                json!({"type": "string", "format": "date", "minLength": 3}),
                "`minLength`",
            ),
            (json!({"allOf": [{"type": "string"}]}), "`allOf` is enforced"),
            (
                json!({"type": "array", "prefixItems": [{}], "minItems": 1}),
                "`minItems`",
            ),
            (
                json!({"$defs": {"a": {"maxProperties": 1}}, "$ref": "#/$defs/a"}),
                "#/$defs/a: `maxProperties`",
            ),
        ] {
            let message = prepare_schema(&schema, true).expect_err("not enforced").to_string();
            assert!(message.contains(expect), "{schema}: {message}");
        }
    }
}
