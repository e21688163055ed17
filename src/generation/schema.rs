//! Bounds of JSON schemas, checked before `common` turns them into grammars: it recurses over them, and some of its steps take
//! the square or cube of their number.

use serde_json::{Map, Value};

/// Nodes of all schemas of a request, each as often as it is built.
const MAX_NODES: usize = 8192;
const MAX_DEPTH: usize = 48;
/// Bytes of the name of a property, of a reference, of a pattern.
const MAX_NAME: usize = 256;
const MAX_PATTERN: usize = 1024;
/// Properties of one object that may be left out: a grammar has a rule for each order of what follows.
const MAX_OPTIONAL: usize = 200;
/// The sum of their cubes over all objects, which is the work they make.
const MAX_OPTIONAL_WORK: usize = 3 * MAX_OPTIONAL * MAX_OPTIONAL * MAX_OPTIONAL;
/// `maxItems`, `maxLength` and the like.
const MAX_REPETITION: u64 = 1_000_000;
/// References from one to the next.
const MAX_HOPS: usize = 16;

/// What schemas of a request may still take.
#[derive(Debug, Default)]
pub(super) struct Budget {
    nodes: usize,
    optional_work: usize,
}

impl Budget {
    /// Checks a schema; an error says what is wrong with it.
    pub(super) fn check(&mut self, schema: &Value) -> Result<(), String> {
        if !schema.is_object() {
            return Err("must be an object".into());
        }
        let mut walk = Walk { budget: self, root: schema };
        walk.node(schema, 0, 1)
    }
}

struct Walk<'w> {
    budget: &'w mut Budget,
    root: &'w Value,
}

impl Walk<'_> {
    /// A node that is built `times` times.
    fn node(&mut self, schema: &Value, depth: usize, times: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("is nested more than {MAX_DEPTH} levels deep"));
        }
        // A list of types makes a copy for each.
        let types = schema["type"].as_array().map_or(1, Vec::len).max(1);
        let times = times.saturating_mul(types);
        self.budget.nodes = self.budget.nodes.saturating_add(times);
        if self.budget.nodes > MAX_NODES {
            return Err(format!("has more than {MAX_NODES} parts, together with the other schemas of the request"));
        }
        match schema {
            Value::Object(fields) => self.fields(fields, depth, times),
            Value::Array(items) => items.iter().try_for_each(|item| self.node(item, depth + 1, times)),
            Value::String(text) if text.len() > MAX_PATTERN * 16 => Err("has a string that is too long".into()),
            _ => Ok(()),
        }
    }

    fn fields(&mut self, fields: &Map<String, Value>, depth: usize, times: usize) -> Result<(), String> {
        if let Some(Value::String(reference)) = fields.get("$ref") {
            self.reference(reference)?;
        }
        if let Some(Value::String(pattern)) = fields.get("pattern") {
            if pattern.len() > MAX_PATTERN {
                return Err(format!("has a `pattern` of more than {MAX_PATTERN} bytes"));
            }
            // Each pattern makes a copy of all rules so far.
            self.budget.nodes += 8 * times;
        }
        for field in ["minItems", "maxItems", "minLength", "maxLength"] {
            match fields.get(field) {
                None => {}
                Some(number) if number.as_u64().is_some_and(|number| number <= MAX_REPETITION) => {}
                // A property may have this name.
                Some(Value::Object(_)) => {}
                Some(number) => {
                    return Err(format!("has `{field}` {number}, but must have a whole number up to {MAX_REPETITION}"));
                }
            }
        }
        if let Some(Value::Object(properties)) = fields.get("properties") {
            let required = fields.get("required").and_then(Value::as_array).map_or(0, Vec::len);
            let optional = properties.len().saturating_sub(required.min(properties.len()));
            let work = optional.saturating_pow(3).saturating_mul(times);
            self.budget.optional_work = self.budget.optional_work.saturating_add(work);
            if optional > MAX_OPTIONAL || self.budget.optional_work > MAX_OPTIONAL_WORK {
                return Err(format!(
                    "has an object with {} properties of which {optional} may be left out; {MAX_OPTIONAL} are possible, \
                     fewer in each of several objects",
                    properties.len()
                ));
            }
        }
        fields.iter().try_for_each(|(name, value)| {
            if name.len() > MAX_NAME {
                return Err(format!("has a name of more than {MAX_NAME} bytes"));
            }
            self.node(value, depth + 1, times)
        })
    }

    /// Follows a reference: one that leads to itself through nothing but references has no end.
    fn reference(&self, reference: &str) -> Result<(), String> {
        let mut next = reference;
        for _ in 0..MAX_HOPS {
            if next.len() > MAX_NAME {
                return Err(format!("has a `$ref` of more than {MAX_NAME} bytes"));
            }
            let Some(path) = next.strip_prefix("#/") else {
                return Err(format!("has the `$ref` {next:?}; only those within the same schema, `#/…`, are possible"));
            };
            // As `common` follows it: without the escapes of JSON pointers.
            let target = path.split('/').try_fold(self.root, |target, step| match target {
                Value::Object(fields) => fields.get(step),
                Value::Array(items) => items.get(step.parse::<usize>().ok()?),
                _ => None,
            });
            match target.map(|target| target.get("$ref")) {
                None => return Err(format!("has the `$ref` {next:?}, which leads nowhere")),
                Some(Some(Value::String(further))) => next = further,
                Some(_) => return Ok(()),
            }
        }
        Err(format!("has the `$ref` {reference:?}, which leads only to further references"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(schema: &Value) -> Option<String> {
        Budget::default().check(schema).err()
    }

    fn nested(depth: usize, mut schema: Value) -> Value {
        for _ in 0..depth {
            schema = json!({"type": "array", "items": schema});
        }
        schema
    }

    #[test]
    fn honest_schemas_pass() {
        let tree = json!({
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/tree"}, "n": {"type": ["integer", "null"], "minimum": 0}},
            "required": ["left"],
            "$defs": {"tree": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]}, "leaf": {"type": "string", "maxLength": 9}},
        });
        assert_eq!(wrong(&tree), None);
        let optional: Map<String, Value> = (0..150).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
        assert_eq!(wrong(&json!({"type": "object", "properties": optional})), None);
        let maxes = json!({"type": "object", "properties": {"maxItems": {"type": "integer"}}});
        assert_eq!(wrong(&maxes), None);
    }

    #[test]
    fn hostile_schemas_are_told_apart() {
        let types = |depth: usize| {
            (0..depth).fold(json!({"type": "string"}), |schema, _| {
                json!({"type": ["object"; 16], "properties": {"a": schema}})
            })
        };
        let many: Map<String, Value> = (0..500).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
        for (schema, expect) in [
            (json!([]), "must be an object"),
            (nested(60, json!({})), "nested more than"),
            (types(6), "more than 8192 parts"),
            (json!({"allOf": vec![json!({}); 9000]}), "more than 8192 parts"),
            (json!({"type": "object", "properties": many}), "may be left out"),
            (json!({"pattern": "a".repeat(2000)}), "`pattern`"),
            (json!({"maxItems": 10_000_000}), "`maxItems`"),
            (json!({"minLength": -1}), "`minLength`"),
            (json!({"properties": {"a".repeat(300): {}}}), "name of more than"),
            (json!({"$ref": "https://example.com/x"}), "within the same schema"),
            (json!({"$ref": "#/nowhere"}), "leads nowhere"),
            (
                json!({"allOf": [{"$ref": "#/a"}], "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}),
                "only to further references",
            ),
        ] {
            let message = wrong(&schema).unwrap_or_default();
            assert!(message.contains(expect), "{expect}: {message}");
        }
    }
}
