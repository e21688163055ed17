//! What is served without any configuration.

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::keys::{PartialConfig, PartialModel};
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
