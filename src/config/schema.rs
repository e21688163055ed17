//! The JSON schema of `models.toml`, for editors and for the check of our own example.

use serde_json::{Map, Value, json};

use super::keys::{
    PartialDraft, PartialExperts, PartialKey, PartialMemory, PartialModel, PartialPreset, PartialRope, PartialServer,
};
use super::sampling;
use super::section::Section;
use super::upstream::PartialUpstream;

/// The schema as JSON.
#[must_use]
pub fn schema() -> Value {
    let mut sampling = sampling::SCHEMA.clone();
    // What it refers to is looked for at the top.
    let mut further = Value::Null;
    if let Some(sampling) = sampling.as_object_mut() {
        sampling.remove("$schema");
        further = sampling.remove("$defs").unwrap_or_default();
    }
    let below = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
    let mut of_model = Map::new();
    of_model.insert("experts".to_owned(), below("Experts"));
    of_model.insert("draft".to_owned(), below("Draft"));
    of_model.insert("rope".to_owned(), below("Rope"));
    let servers = json!({"type": "array", "items": below("Upstream"), "minItems": 1});
    of_model.insert("upstream".to_owned(), json!({"anyOf": [below("Upstream"), servers]}));
    of_model.insert("sampling".to_owned(), below("SamplingOverrides"));
    let mut of_preset = Map::new();
    of_preset.insert("sampling".to_owned(), below("SamplingOverrides"));
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hearth models.toml",
        "type": "object",
        "properties": {
            "server": below("Server"),
            "memory": below("Memory"),
            "model": {"type": "array", "description": "The models.", "items": below("Model")},
            "preset": {"type": "array", "description": "Models under further names.", "items": below("Preset")},
            "key": {"type": "array", "description": "Keys of clients.", "items": below("Key")},
        },
        "required": ["model"],
        "additionalProperties": false,
        "$defs": {
            "Server": PartialServer::schema(Map::new()),
            "Memory": PartialMemory::schema(Map::new()),
            "Model": PartialModel::schema(of_model),
            "Preset": PartialPreset::schema(of_preset),
            "Key": PartialKey::schema(Map::new()),
            "Experts": PartialExperts::schema(Map::new()),
            "Draft": PartialDraft::schema(Map::new()),
            "Rope": PartialRope::schema(Map::new()),
            "Upstream": PartialUpstream::schema(Map::new()),
            "SamplingOverrides": sampling,
        },
    });
    if let (Some(all), Value::Object(further)) = (schema["$defs"].as_object_mut(), further) {
        all.extend(further);
    }
    schema
}
