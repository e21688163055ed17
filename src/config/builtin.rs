//! What is served without any configuration.

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::draft::{Draft, ModelDraft, Setting};
use super::types::{ModelConfig, built_in_pair};
use crate::demo::DemoModel;

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
