//! What is served without any configuration.

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::draft::{Draft, ModelDraft, Setting};
use super::types::{ModelConfig, ModelSource};
use crate::demo::DemoModel;
use crate::sampling::SamplingOverrides;

/// The built-in pair, in the roles of the real one.
pub(super) fn draft(problems: &Problems) -> Draft {
    if !DemoModel::embedded() {
        let message = "no configuration was found, and this hearth was built without the built-in models";
        let hint = "name a configuration with `--config FILE`, or a model with `--model-path FILE`";
        problems.push(Diagnostic::error(&Origin::Default, message).hint(hint.to_owned()));
        return Draft::default();
    }
    Draft {
        models: built_in_pair().into_iter().map(model).collect(),
        ..Draft::default()
    }
}

fn model(model: ModelConfig) -> ModelDraft {
    ModelDraft {
        name: Some(Setting::default_of(model.name)),
        role: model.role.map(Setting::default_of),
        aliases: model.aliases.into_iter().map(Setting::default_of).collect(),
        source: Some(Setting::default_of(model.source)),
        port: model.port.map(Setting::default_of),
        context: Setting::default_of(model.context),
        parallel: Setting::default_of(model.parallel),
        threads: Setting::default_of(model.threads),
        queue: Setting::default_of(model.queue),
        kv_type: Setting::default_of(model.kv_type),
        gpu_layers: Setting::default_of(model.gpu_layers),
        placement: Setting::default_of(model.experts.placement),
        cache: Setting::default_of(model.experts.cache),
        device: Setting::default_of(model.experts.device),
        policy: Setting::default_of(model.experts.policy),
        sampling: Setting::default_of(model.sampling),
    }
}

/// What hearth serves when nothing is configured.
fn built_in_pair() -> Vec<ModelConfig> {
    let model = |demo: DemoModel, role: &str, sampling| ModelConfig {
        role: Some(role.to_owned()),
        sampling,
        ..ModelConfig::new(format!("demo-{}", demo.name()), ModelSource::Demo(demo))
    };
    vec![
        model(
            DemoModel::Reasoner,
            "reasoning",
            SamplingOverrides {
                temperature: Some(0.7),
                top_p: Some(0.8),
                top_k: Some(20),
                min_p: Some(0.0),
                max_tokens: Some(1024),
                ..SamplingOverrides::default()
            },
        ),
        model(
            DemoModel::Narrator,
            "narrator",
            SamplingOverrides {
                temperature: Some(1.25),
                min_p: Some(0.2),
                max_tokens: Some(1024),
                ..SamplingOverrides::default()
            },
        ),
    ]
}
