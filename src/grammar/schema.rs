//! Checks of JSON schemas before llama.cpp makes grammars of them.
//!
//! Its converter follows a schema by recursion, and copies what `allOf` and lists of types refer to: a small schema can make
//! it run for ever. This walks the same way with a bound, and says what is wrong where.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cost::{MAX_COST, cost};
use super::error::GrammarError;

const MAX_BYTES: usize = 512 << 10;
/// Schemas within schemas, references included.
const MAX_DEPTH: usize = 100;
/// Schemas that the converter looks at.
const MAX_VISITS: usize = 20_000;
const MAX_PROPERTIES: usize = 500;
const MAX_CHOICES: usize = 2_000;
/// What `maxItems`, `maxLength` and the like may say: each repetition is written out.
const MAX_REPEAT: u64 = 20_000;
const MAX_PATTERN_BYTES: usize = 1000;
/// Of a property's name, and of a reference: the converter replaces characters in them by a regular expression of C++'s library,
/// which recurses once for each.
const MAX_NAME_BYTES: usize = 1000;

/// Checks that a schema can be made into a grammar in a moment.
///
/// # Errors
/// Says what is wrong, and where, or which bound it exceeds.
pub(super) fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    let mut bytes = Counter(0);
    // What is not written cannot fail to be.
    let _ = serde_json::to_writer(&mut bytes, schema);
    if bytes.0 > MAX_BYTES {
        let size = format!(
            "the JSON schema has {} bytes, but at most {MAX_BYTES} are taken",
            bytes.0
        );
        return Err(GrammarError::TooLarge(size));
    }
    if cost(schema) > MAX_COST {
        return Err(GrammarError::TooLarge("the JSON schema has too many values".into()));
    }
    Walk {
        root: schema,
        visits: 0,
        references: BTreeSet::new(),
    }
    .schema(schema, "#", 0)
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Walk<'s> {
    root: &'s Value,
    visits: usize,
    /// References whose target was walked.
    references: BTreeSet<&'s str>,
}

pub(super) fn wrong(path: &str, what: impl Into<String>) -> GrammarError {
    GrammarError::Schema {
        // Names of properties are the client's, and may be long.
        path: path.chars().take(200).collect(),
        what: what.into(),
    }
}

impl<'s> Walk<'s> {
    fn visit(&mut self, path: &str, depth: usize) -> Result<(), GrammarError> {
        self.visits += 1;
        if depth > MAX_DEPTH {
            return Err(wrong(path, format!("schemas nest deeper than {MAX_DEPTH}")));
        }
        if self.visits > MAX_VISITS {
            let what = format!("with its references followed the schema has more than {MAX_VISITS} parts");
            return Err(GrammarError::TooLarge(what));
        }
        Ok(())
    }

    fn schema(&mut self, schema: &'s Value, path: &str, depth: usize) -> Result<(), GrammarError> {
        self.visit(path, depth)?;
        let Some(fields) = schema.as_object() else {
            return Err(wrong(path, "a schema must be an object"));
        };
        if let Some(reference) = fields.get("$ref") {
            let (reference, target) = target(self.root, reference, path)?;
            if self.references.insert(reference) {
                self.schema(target, reference, depth + 1)?;
            }
            return Ok(());
        }
        for key in ["minLength", "maxLength", "minItems", "maxItems"] {
            match fields.get(key).map(Value::as_u64) {
                None => {}
                Some(Some(0..=MAX_REPEAT)) => {}
                Some(Some(_)) => return Err(wrong(path, format!("`{key}` is more than {MAX_REPEAT}"))),
                Some(None) => {
                    return Err(wrong(
                        path,
                        format!("`{key}` must be a whole number that is not negative"),
                    ));
                }
            }
        }
        match fields.get("pattern") {
            None => {}
            Some(Value::String(pattern)) if pattern.len() <= MAX_PATTERN_BYTES => {}
            Some(Value::String(_)) => {
                return Err(wrong(
                    path,
                    format!("`pattern` has more than {MAX_PATTERN_BYTES} bytes"),
                ));
            }
            Some(_) => return Err(wrong(path, "`pattern` must be a string")),
        }
        // A list of types is as many schemas.
        let types = match fields.get("type") {
            None => 1,
            Some(Value::String(kind)) => self.kind(kind, path)?,
            Some(Value::Array(kinds)) if !kinds.is_empty() => {
                for kind in kinds {
                    let Some(kind) = kind.as_str() else {
                        return Err(wrong(path, "`type` must name types"));
                    };
                    self.kind(kind, path)?;
                }
                kinds.len()
            }
            Some(_) => return Err(wrong(path, "`type` must be a string, or a list of strings")),
        };
        for _ in 0..types {
            self.parts(fields, path, depth)?;
        }
        Ok(())
    }

    fn kind(&self, kind: &str, path: &str) -> Result<usize, GrammarError> {
        match kind {
            "object" | "array" | "string" | "integer" | "number" | "boolean" | "null" => Ok(1),
            _ => Err(wrong(
                path,
                format!("there is no type `{}`", kind.chars().take(40).collect::<String>()),
            )),
        }
    }

    fn parts(
        &mut self,
        fields: &'s serde_json::Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<(), GrammarError> {
        for key in ["oneOf", "anyOf", "allOf", "prefixItems"] {
            let path = format!("{path}/{key}");
            let Some(schemas) = fields.get(key) else { continue };
            for (index, schema) in list(schemas, &path)?.iter().enumerate() {
                let path = format!("{path}/{index}");
                self.schema(schema, &path, depth + 1)?;
                if key == "allOf" {
                    self.inlined(schema, &path, depth + 1)?;
                }
            }
        }
        if let Some(properties) = fields.get("properties") {
            let Some(properties) = properties.as_object() else {
                return Err(wrong(path, "`properties` must be an object"));
            };
            if properties.len() > MAX_PROPERTIES {
                return Err(wrong(path, format!("there are more than {MAX_PROPERTIES} properties")));
            }
            for (name, schema) in properties {
                if name.len() > MAX_NAME_BYTES {
                    return Err(wrong(
                        path,
                        format!("a property's name has more than {MAX_NAME_BYTES} bytes"),
                    ));
                }
                self.schema(schema, &format!("{path}/properties/{name}"), depth + 1)?;
            }
        }
        match fields.get("additionalProperties") {
            None | Some(Value::Bool(_)) => {}
            Some(schema) => self.schema(schema, &format!("{path}/additionalProperties"), depth + 1)?,
        }
        match fields.get("items") {
            None => {}
            Some(Value::Array(items)) => {
                for (index, schema) in items.iter().enumerate() {
                    self.schema(schema, &format!("{path}/items/{index}"), depth + 1)?;
                }
            }
            Some(schema) => self.schema(schema, &format!("{path}/items"), depth + 1)?,
        }
        if let Some(values) = fields.get("enum") {
            list(values, &format!("{path}/enum"))?;
        }
        Ok(())
    }

    /// What `allOf` takes over: the properties behind references are written out once more, wherever they are used.
    fn inlined(&mut self, mut schema: &'s Value, path: &str, depth: usize) -> Result<(), GrammarError> {
        let mut depth = depth;
        let mut referred = false;
        while let Some(reference) = schema.get("$ref") {
            depth += 1;
            self.visit(path, depth)?;
            schema = target(self.root, reference, path)?.1;
            referred = true;
        }
        if referred && let Some(fields) = schema.as_object() {
            self.parts(fields, path, depth + 1)?;
        }
        for key in ["anyOf", "oneOf"] {
            for schema in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.visit(path, depth)?;
                self.inlined(schema, path, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// What a `$ref` says, and the schema that it names: llama.cpp's converter decodes no escapes.
pub(super) fn target<'s>(
    root: &'s Value,
    reference: &'s Value,
    path: &str,
) -> Result<(&'s str, &'s Value), GrammarError> {
    let Some(reference) = reference.as_str() else {
        return Err(wrong(path, "`$ref` must be a string"));
    };
    let shown: String = reference.chars().take(100).collect();
    let Some(names) = reference.strip_prefix("#/") else {
        return Err(wrong(
            path,
            format!("`$ref` is `{shown}`, but only references into the same schema (`#/...`) can be followed"),
        ));
    };
    if reference.len() > MAX_NAME_BYTES {
        return Err(wrong(path, format!("`$ref` has more than {MAX_NAME_BYTES} bytes")));
    }
    let mut target = root;
    for name in names.split('/') {
        let found = match target {
            Value::Object(fields) => fields.get(name),
            Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index)),
            _ => None,
        };
        target = found.ok_or_else(|| wrong(path, format!("`$ref` is `{shown}`, which is not in the schema")))?;
    }
    Ok((reference, target))
}

fn list<'s>(value: &'s Value, path: &str) -> Result<&'s [Value], GrammarError> {
    match value.as_array() {
        Some(list) if list.is_empty() => Err(wrong(path, "must not be empty")),
        Some(list) if list.len() > MAX_CHOICES => Err(wrong(path, format!("has more than {MAX_CHOICES} entries"))),
        Some(list) => Ok(list),
        None => Err(wrong(path, "must be a list")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ordinary_schemas_pass() {
        for schema in [
            json!({}),
            json!({"type": ["string", "null"], "maxLength": 200, "pattern": "^[a-z]+$"}),
            json!({"type": "object", "properties": {"a": {"enum": [1, "b", null]}, "b": {"$ref": "#/$defs/t"}}, "required": ["a"],
                "additionalProperties": false, "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}),
            json!({"allOf": [{"$ref": "#/$defs/a"}, {"anyOf": [{"properties": {"x": {}}}, {"type": "object"}]}], "$defs": {"a": {"type": "object", "properties": {"y": {"const": 3}}}}}),
            json!({"type": "array", "prefixItems": [{"type": "integer", "minimum": -5}, {"type": "boolean"}]}),
        ] {
            assert_eq!(check_schema(&schema), Ok(()), "{schema}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        for (schema, expect) in [
            (json!([]), "at #: a schema must be an object"),
            (
                json!({"properties": {"a": 3}}),
                "at #/properties/a: a schema must be an object",
            ),
            (json!({"type": "text"}), "no type `text`"),
            (json!({"type": []}), "`type` must be"),
            (json!({"anyOf": []}), "#/anyOf: must not be empty"),
            (json!({"enum": {}}), "#/enum: must be a list"),
            (
                json!({"items": {"minItems": -1}}),
                "at #/items: `minItems` must be a whole number",
            ),
            (json!({"$ref": "other.json"}), "only references into the same schema"),
            (json!({"$ref": "#/$defs/a"}), "is not in the schema"),
            (json!({"maxLength": 1_000_000}), "`maxLength` is more than"),
            (json!({"properties": {("_".repeat(2000)): {}}}), "name has more than"),
            (
                json!({"$ref": format!("#/{}", "_".repeat(2000)), ("_".repeat(2000)): {}}),
                "`$ref` has more than",
            ),
        ] {
            let message = check_schema(&schema).expect_err("a mistake").to_string();
            assert!(message.contains(expect), "{schema}: {message}");
        }
    }

    #[test]
    fn schemas_that_never_end_are_refused() {
        let mut deep = json!({"type": "string"});
        for _ in 0..200 {
            deep = json!({"type": "array", "items": deep});
        }
        let chain: serde_json::Map<String, Value> = (0..300)
            .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)})))
            .collect();
        let doubling: serde_json::Map<String, Value> = (0..40)
            .map(|n| {
                let next = json!({"allOf": [{"$ref": format!("#/$defs/d{}", n + 1)}]});
                (format!("d{n}"), json!({"properties": {"a": next, "b": next}}))
            })
            .chain([("d40".into(), json!({}))])
            .collect();
        let mut types = json!({"type": ["object", "array"]});
        for _ in 0..40 {
            types = json!({"type": ["object", "array"], "properties": {"a": types}});
        }
        let many: serde_json::Map<String, Value> = (0..1000).map(|n| (n.to_string(), json!({}))).collect();
        for schema in [
            deep,
            json!({"$ref": "#/$defs/d0", "$defs": chain}),
            json!({"$ref": "#/$defs/d0", "$defs": doubling}),
            types,
            json!({"properties": many}),
            json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/a"}]}}}}}),
            json!({"const": "x".repeat(600_000)}),
            json!({"const": (0..10_000).map(|n| (n.to_string(), json!(0))).collect::<serde_json::Map<String, Value>>()}),
        ] {
            assert!(
                check_schema(&schema).is_err(),
                "{}",
                schema.to_string().chars().take(200).collect::<String>()
            );
        }
    }
}
