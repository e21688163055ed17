//! What is served without any configuration.

use serde_json::{Value, json};

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::keys::{PartialConfig, PartialModel, PartialPreset};
use super::sampling::PartialSampling;
use super::setting::Setting;
use super::types::ModelSource;
use crate::demo::DemoModel;
use crate::sampling::SamplingOverrides;

/// The built-in pair, in the roles of the real one.
pub(super) fn config(problems: &Problems) -> PartialConfig {
    if !DemoModel::embedded() {
        let message = "no configuration was found, and this hearth was built without the built-in models";
        let hint = "name a configuration with `--config FILE`, or a model with `--model-path FILE`";
        problems.push(Diagnostic::error(&Origin::Default, message).hint(hint.to_owned()));
        return PartialConfig::default();
    }
    PartialConfig {
        models: vec![reasoner(), narrator()],
        presets: presets(),
        ..PartialConfig::default()
    }
}

fn model(demo: DemoModel, role: &str, sampling: SamplingOverrides) -> PartialModel {
    PartialModel {
        role: Setting::default_of(Some(role.to_owned())),
        sampling: PartialSampling::default_of(sampling),
        ..PartialModel::new(format!("demo-{}", demo.name()), ModelSource::Demo(demo))
    }
}

fn reasoner() -> PartialModel {
    let sampling = SamplingOverrides {
        temperature: Some(0.7),
        top_p: Some(0.8),
        top_k: Some(20),
        min_p: Some(0.0),
        max_tokens: Some(1024),
        ..SamplingOverrides::default()
    };
    model(DemoModel::Reasoner, "reasoning", sampling)
}

fn narrator() -> PartialModel {
    let sampling = SamplingOverrides {
        temperature: Some(1.25),
        min_p: Some(0.2),
        max_tokens: Some(1024),
        ..SamplingOverrides::default()
    };
    PartialModel {
        embeddings: Setting::default_of(true),
        ..model(DemoModel::Narrator, "narrator", sampling)
    }
}

fn preset(name: &str, model: DemoModel) -> PartialPreset {
    PartialPreset {
        name: Setting::default_of(name.to_owned()),
        model: Setting::default_of(format!("demo-{}", model.name())),
        ..PartialPreset::default()
    }
}

/// A preset that answers with JSON, and likeliest words.
fn answers_json(name: &str, system: &str, schema: Value) -> PartialPreset {
    let format = [
        ("type".to_owned(), "json_schema".into()),
        (
            "json_schema".to_owned(),
            json!({"name": name, "strict": true, "schema": schema}),
        ),
    ];
    PartialPreset {
        system: Setting::default_of(Some(system.to_owned())),
        response_format: Setting::default_of(Some(format.into_iter().collect())),
        enable_thinking: Setting::default_of(Some(false)),
        sampling: PartialSampling::default_of(SamplingOverrides {
            temperature: Some(0.0),
            max_tokens: Some(512),
            ..SamplingOverrides::default()
        }),
        ..preset(name, DemoModel::Reasoner)
    }
}

/// The same names as in the example, so that programs need not change when real models come.
fn presets() -> Vec<PartialPreset> {
    // Grammars hold the words of an enum, but not the range of a number.
    let confidence: Vec<f64> = (0..=10).map(|tenths| f64::from(tenths) / 10.0).collect();
    let text = json!({"type": "string"});
    vec![
        PartialPreset {
            enable_thinking: Setting::default_of(Some(true)),
            ..preset("reasoning", DemoModel::Reasoner)
        },
        preset("narrator", DemoModel::Narrator),
        answers_json(
            "intent",
            "Classify the user's message into one of the given labels. Answer as JSON.",
            json!({
                "type": "object",
                "properties": {"intent": text, "confidence": {"enum": confidence}},
                "required": ["intent", "confidence"],
                "additionalProperties": false,
            }),
        ),
        answers_json(
            "extract",
            "Extract the entities as JSON.",
            json!({
                "type": "object",
                "properties": {
                    "entities": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"type": text, "text": text},
                            "required": ["type", "text"],
                            "additionalProperties": false,
                        },
                    },
                },
                "required": ["entities"],
                "additionalProperties": false,
            }),
        ),
    ]
}
