//! What becomes of a model on a machine, quantization by quantization, and which one to take. Pure: it asks the planner.

use serde::Serialize;

use crate::config::MemoryConfig;
use crate::gguf::Gguf;
use crate::host::Machine;
use crate::memory::Tier;
use crate::plan::{self, Experts, ModelPlan, ModelRequest, ModelShape, Plan};
use crate::synthetic::Mix;

/// A quantization that is looked at, the most exact first: name as of `hearth quantize`, and what other engines call that.
const LEVELS: [(&str, &str); 10] = [
    ("f16", "BF16"),
    ("q8_0", "FP8"),
    ("q6_k", ""),
    ("q5_k_m", ""),
    ("q4_k_m", "INT4"),
    ("nvfp4", "NVFP4"),
    ("mxfp4", "MXFP4"),
    ("iq4_xs", ""),
    ("q3_k_m", ""),
    ("q2_k", ""),
];
/// The usual choice: more exact ones are held against it, smaller ones lose noticeably.
const USUAL: &str = "q4_k_m";
/// Types that lose noticeably.
const LOSSY: [&str; 2] = ["q3_k_m", "q2_k"];
/// Not recommended by itself: NVFP4 needs files that were made with scales, MXFP4 models that were trained for it.
const SPECIAL: [&str; 2] = ["nvfp4", "mxfp4"];
/// Architectures that are trained in a type: larger ones are no more exact.
const NATIVE: [(&str, &str); 1] = [("gpt-oss", "mxfp4")];
/// Share of the usual choice's speed that a more exact one may cost.
const WORTH: f64 = 0.7;

/// One quantization of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Level {
    pub(super) r#type: &'static str,
    /// What other engines call something of this size.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) like: &'static str,
    /// Of all tensors.
    pub(super) bytes: u64,
    pub(super) bits_per_weight: f64,
    /// The planner's answer; `None` where it does not fit.
    pub(super) fit: Option<Fit>,
    /// Why it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    pub(super) recommended: bool,
}

/// How a model fits. Times and rates are estimates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Fit {
    pub(super) placement: String,
    pub(super) gpu_bytes: u64,
    pub(super) ram_bytes: u64,
    /// Tokens of a slot, and slots.
    pub(super) context: u32,
    pub(super) slots: u32,
    pub(super) tokens_per_second: f64,
    /// Seconds to the first token of a prompt of 2,048.
    pub(super) first_token: f64,
}

/// What to take, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Choice {
    pub(super) r#type: Option<&'static str>,
    pub(super) why: String,
}

/// Asks the planner about every quantization.
///
/// # Errors
/// When the file describes no model that can be quantized.
pub(super) fn levels(
    gguf: &Gguf,
    request: &ModelRequest,
    machine: &Machine,
    limits: &MemoryConfig,
) -> anyhow::Result<Vec<Level>> {
    let geometry = gguf.geometry()?;
    let levels = LEVELS.into_iter().map(|(name, like)| {
        let tensors = Mix::from_name(name)?.retype(gguf.tensors(), geometry.layers)?;
        let bytes: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
        let request = ModelRequest {
            shape: ModelShape::with_tensors(gguf, &geometry, &tensors),
            ..request.clone()
        };
        let planned = plan::plan(machine, limits, std::slice::from_ref(&request));
        Ok(Level {
            r#type: name,
            like,
            bytes,
            bits_per_weight: bits(bytes, gguf.parameters()),
            problem: planned.as_ref().err().map(|error| error.what.clone()),
            fit: planned.ok().map(|plan| fit(&plan)),
            recommended: false,
        })
    });
    levels.collect()
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn bits(bytes: u64, weights: u64) -> f64 {
    bytes as f64 * 8.0 / weights.max(1) as f64
}

fn fit(plan: &Plan) -> Fit {
    let model = &plan.models[0];
    Fit {
        placement: placement(plan, model),
        gpu_bytes: model.bytes(Tier::Gpu),
        ram_bytes: model.bytes(Tier::Ram),
        context: model.context.tokens,
        slots: model.context.parallel,
        tokens_per_second: model.decode.tokens_per_second,
        first_token: model.first_token,
    }
}

fn placement(plan: &Plan, model: &ModelPlan) -> String {
    if plan.device.is_none() {
        return "RAM".to_owned();
    }
    match (model.gpu_layers, model.experts) {
        (None, Experts::None | Experts::Layers) => "GPU".to_owned(),
        (_, Experts::Cache { capacity, of, .. }) => format!("GPU, {} % of experts hot", capacity * 100 / of.max(1)),
        (None, Experts::Ram) => "GPU, experts in RAM".to_owned(),
        (Some(layers), _) => format!("{layers} of {} layers on GPU", model.all_layers),
    }
}

/// The type that models of an architecture are trained in.
pub(super) fn native(architecture: &str) -> Option<&'static str> {
    NATIVE
        .iter()
        .find(|(name, _)| *name == architecture)
        .map(|(_, kind)| *kind)
}

/// Chooses one and marks it. `speed` is how many tokens/s are wanted at least, `native` the type that the model was trained in.
pub(super) fn choose(levels: &mut [Level], speed: Option<f64>, native: Option<&'static str>) -> Choice {
    let fast = |level: &Level| {
        level
            .fit
            .as_ref()
            .is_some_and(|fit| fit.tokens_per_second >= speed.unwrap_or(0.0))
    };
    let trained = levels.iter_mut().find(|level| Some(level.r#type) == native);
    if let Some(level) = trained.filter(|level| fast(level)) {
        level.recommended = true;
        return Choice {
            r#type: Some(level.r#type),
            why: "the type that the model was trained in: larger ones are no more exact".to_owned(),
        };
    }
    let rate = |level: &Level| level.fit.as_ref().map(|fit| fit.tokens_per_second);
    let usual = levels.iter().find(|level| level.r#type == USUAL).and_then(rate);
    let fits = levels.iter().filter(|level| level.fit.is_some()).count();
    let ordinary = |level: &&mut Level| !SPECIAL.contains(&level.r#type);
    let (wanted, why) = match (speed, usual) {
        (Some(speed), _) => (speed, format!("the most exact one with {speed} tokens/s or more")),
        (None, Some(usual)) => (
            usual * WORTH,
            format!(
                "the most exact one with at least {:.0} % of {USUAL}'s speed",
                WORTH * 100.0
            ),
        ),
        (None, None) => (0.0, "the most exact one that fits".to_owned()),
    };
    let found = levels
        .iter_mut()
        .filter(ordinary)
        .find(|level| level.fit.as_ref().is_some_and(|fit| fit.tokens_per_second >= wanted));
    match found {
        Some(level) => {
            level.recommended = true;
            let lossy = if LOSSY.contains(&level.r#type) {
                "; it loses noticeably: a smaller model in q4_k_m may answer better"
            } else {
                ""
            };
            Choice {
                r#type: Some(level.r#type),
                why: format!("{why}{lossy}"),
            }
        }
        None if fits > 0 => Choice {
            r#type: None,
            why: format!("none reaches {wanted} tokens/s here; the smaller ones are the faster ones"),
        },
        None => Choice {
            r#type: None,
            why: "none fits this machine".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &'static str, rate: Option<f64>) -> Level {
        Level {
            r#type: name,
            like: "",
            bytes: 1,
            bits_per_weight: 1.0,
            fit: rate.map(|tokens_per_second| Fit {
                placement: String::new(),
                gpu_bytes: 0,
                ram_bytes: 0,
                context: 1,
                slots: 1,
                tokens_per_second,
                first_token: 1.0,
            }),
            problem: None,
            recommended: false,
        }
    }

    fn chosen(rates: &[(&'static str, Option<f64>)], speed: Option<f64>) -> Option<&'static str> {
        let mut levels: Vec<Level> = rates.iter().map(|(name, rate)| level(name, *rate)).collect();
        let choice = choose(&mut levels, speed, None);
        let marked = levels.iter().find(|level| level.recommended).map(|level| level.r#type);
        assert_eq!(choice.r#type, marked);
        marked
    }

    #[test]
    fn more_exact_ones_are_taken_where_they_cost_little() {
        let fast = [("q8_0", Some(80.0)), ("q4_k_m", Some(100.0)), ("q2_k", Some(150.0))];
        assert_eq!(chosen(&fast, None), Some("q8_0"));
        let slow = [("q8_0", Some(5.0)), ("q4_k_m", Some(100.0)), ("q2_k", Some(150.0))];
        assert_eq!(chosen(&slow, None), Some("q4_k_m"));
        assert_eq!(chosen(&slow, Some(120.0)), Some("q2_k"));
        assert_eq!(chosen(&slow, Some(500.0)), None);
        let tight = [
            ("q4_k_m", None),
            ("nvfp4", Some(9.0)),
            ("q3_k_m", Some(3.0)),
            ("q2_k", Some(5.0)),
        ];
        assert_eq!(chosen(&tight, None), Some("q3_k_m"));
        assert_eq!(chosen(&[("q2_k", None)], None), None);
    }

    #[test]
    fn models_that_were_trained_in_a_type_keep_it() {
        let mut levels = [level("q8_0", Some(90.0)), level("mxfp4", Some(80.0))];
        assert_eq!(choose(&mut levels, None, native("gpt-oss")).r#type, Some("mxfp4"));
        let mut levels = [level("mxfp4", None), level("q3_k_m", Some(80.0))];
        assert_eq!(choose(&mut levels, None, native("gpt-oss")).r#type, Some("q3_k_m"));
        assert_eq!(native("llama"), None);
    }
}
