//! Which schemas llama.cpp's converter holds in full.
//!
//! It passes over what it does not know: an answer may then break the schema. Where a request says `strict`, it is refused
//! instead. Follows `build_node` of llama.cpp's common/json-schema.cpp.

use serde_json::{Map, Value};

use super::error::GrammarError;
use super::pattern::spell;
use super::schema::{check_schema, wrong};

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

/// The schema as the converter understands most of it: its patterns are spelled out.
///
/// # Errors
/// As [`check_schema`].
pub fn prepare_schema(schema: &Value) -> Result<Value, GrammarError> {
    check_schema(schema)?;
    let mut schema = schema.clone();
    walk(&mut schema, "#", &mut |fields, _| {
        if let Some(Value::String(pattern)) = fields.get_mut("pattern")
            && let Ok(spelled) = spell(pattern)
        {
            *pattern = spelled;
        }
        Ok(())
    })?;
    Ok(schema)
}

/// Checks that an answer to the schema's grammar always fits the schema.
///
/// # Errors
/// As [`check_schema`]; names the keyword that is not held, and where it stands.
pub fn check_strict(schema: &Value) -> Result<(), GrammarError> {
    check_schema(schema)?;
    walk(&mut schema.clone(), "#", &mut |fields, path| node(schema, fields, path))
}

/// Visits a schema and those in it. References are not followed: what they name is in the schema as well.
fn walk<V>(schema: &mut Value, path: &str, visit: &mut V) -> Result<(), GrammarError>
where
    V: FnMut(&mut Fields, &str) -> Result<(), GrammarError>,
{
    let Some(fields) = schema.as_object_mut() else {
        return Ok(());
    };
    visit(fields, path)?;
    for key in ["properties", "patternProperties", "$defs", "definitions"] {
        for (name, schema) in fields.get_mut(key).and_then(Value::as_object_mut).into_iter().flatten() {
            walk(schema, &format!("{path}/{key}/{name}"), visit)?;
        }
    }
    for key in [
        "items",
        "prefixItems",
        "additionalProperties",
        "oneOf",
        "anyOf",
        "allOf",
    ] {
        match fields.get_mut(key) {
            Some(Value::Array(schemas)) => {
                for (index, schema) in schemas.iter_mut().enumerate() {
                    walk(schema, &format!("{path}/{key}/{index}"), visit)?;
                }
            }
            Some(schema) => walk(schema, &format!("{path}/{key}"), visit)?,
            None => {}
        }
    }
    Ok(())
}

/// Checks one schema by itself.
fn node(root: &Value, fields: &Fields, path: &str) -> Result<(), GrammarError> {
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
    let structured = fields.contains_key("properties")
        || fields
            .get("additionalProperties")
            .is_some_and(|additional| *additional != Value::Bool(true));
    for kind in types {
        match kind {
            "object" if !structured && fields.contains_key("allOf") => all_of(root, fields, path)?,
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

/// Without a type, what is there says what is meant; of other types it forbids nothing.
fn untyped(root: &Value, fields: &Fields, path: &str) -> Result<(), GrammarError> {
    let has = |keys: &[&str]| keys.iter().any(|key| fields.contains_key(*key));
    if has(&["properties"])
        || fields
            .get("additionalProperties")
            .is_some_and(|value| *value != Value::Bool(true))
    {
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
    let held: &[&str] = match (tuple, fields.contains_key("items")) {
        (true, true) => &["items"],
        (true, false) => &["prefixItems"],
        (false, _) => &["items", "minItems", "maxItems"],
    };
    only(fields, &[held], &[ANY, ARRAY], path)
}

fn string(fields: &Fields, path: &str) -> Result<(), GrammarError> {
    let Some(pattern) = fields.get("pattern").and_then(Value::as_str) else {
        let format = fields.get("format").and_then(Value::as_str).unwrap_or_default();
        let known = matches!(format, "date" | "time" | "date-time") || format.starts_with("uuid");
        let held: &[&str] = if known { &[] } else { &["minLength", "maxLength"] };
        return only(fields, &[held], &[ANY, STRING], path);
    };
    if let Err(what) = spell(pattern) {
        return Err(wrong(path, format!("`pattern` cannot be held: {what}")));
    }
    only(fields, &[&["pattern"]], &[ANY, STRING], path)
}

fn integer(fields: &Fields, path: &str) -> Result<(), GrammarError> {
    let either = |first, second| if fields.contains_key(first) { first } else { second };
    let held = [
        either("minimum", "exclusiveMinimum"),
        either("maximum", "exclusiveMaximum"),
    ];
    only(fields, &[&held], &[ANY, NUMBER], path)
}

/// Properties of all, or values that all have.
fn all_of(root: &Value, fields: &Fields, path: &str) -> Result<(), GrammarError> {
    only(fields, &[&["allOf"]], &[ANY, OBJECT], path)?;
    for mut part in fields.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        // References were followed before, and end.
        while let Some(reference) = part.get("$ref").and_then(Value::as_str) {
            match root.pointer(reference.trim_start_matches('#')) {
                Some(target) if target != part => part = target,
                _ => return Err(wrong(path, "a reference of `allOf` cannot be followed")),
            }
        }
        if part.get("properties").is_none() && part.get("enum").is_none() {
            return Err(wrong(
                path,
                "`allOf` is held for objects with `properties` and for `enum` only",
            ));
        }
    }
    Ok(())
}

/// Refuses what is of these families and not held.
fn only(fields: &Fields, held: &[&[&str]], families: &[&[&str]], path: &str) -> Result<(), GrammarError> {
    let asks = |key: &&&str| {
        fields
            .get(**key)
            .is_some_and(|value| **key != "uniqueItems" || *value != Value::Bool(false))
    };
    let lost = families
        .iter()
        .flat_map(|family| family.iter())
        .find(|key| asks(key) && !held.iter().any(|held| held.contains(*key)));
    match lost {
        None => Ok(()),
        Some(key) => Err(wrong(
            path,
            format!("`{key}` cannot be held here, and the schema is to be held strictly; leave it out, or `strict`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_held_passes() {
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
            assert_eq!(check_strict(&schema), Ok(()), "{schema}");
        }
    }

    #[test]
    fn what_is_passed_over_is_named() {
        for (schema, expect) in [
            (json!({"type": "number", "minimum": 0}), "at #: `minimum` cannot"),
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
                "`properties` cannot",
            ),
            (
                json!({"type": "string", "pattern": "^a+$", "maxLength": 3}),
                "`maxLength`",
            ),
            (
                json!({"type": "string", "pattern": "^(?!a)$"}),
                "`pattern` cannot be held: look-around",
            ),
            (
                json!({"type": "string", "format": "date", "minLength": 3}),
                "`minLength`",
            ),
            (json!({"allOf": [{"type": "string"}]}), "`allOf` is held"),
            (
                json!({"type": "array", "prefixItems": [{}], "minItems": 1}),
                "`minItems`",
            ),
            (
                json!({"$defs": {"a": {"maxProperties": 1}}, "$ref": "#/$defs/a"}),
                "#/$defs/a: `maxProperties`",
            ),
        ] {
            let message = check_strict(&schema).expect_err("not held").to_string();
            assert!(message.contains(expect), "{schema}: {message}");
        }
    }

    #[test]
    fn only_patterns_of_schemas_are_spelled_out() {
        let schema = json!({"properties": {"pattern": {"pattern": "^[a]$"}, "b": {"enum": [{"pattern": "^[a]$"}]}, "c": {"pattern": "^(?=a)$"}}});
        let prepared = prepare_schema(&schema).unwrap();
        assert_eq!(
            prepared.pointer("/properties/pattern/pattern"),
            Some(&json!("^([a-a])$"))
        );
        assert_eq!(prepared.pointer("/properties/b"), schema.pointer("/properties/b"));
        assert_eq!(prepared.pointer("/properties/c"), schema.pointer("/properties/c"));
    }
}
