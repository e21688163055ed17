//! What a plan could have been: single changes of it, and what each would buy.

use std::fmt;

use serde::Serialize;

use super::choose::{Step, runners_up, worth};
use super::memory::Context;
use super::outcome::{Experts, ModelPlan, Plan};
use super::place::attempt;
use super::request::ModelRequest;
use crate::config::{MemoryConfig, MemoryLimit};
use crate::memory::{Kind, Tier, bytes};

/// A plan beside others that differ from it in one thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// Names of the models, in the order of all numbers here.
    models: Vec<String>,
    planned: Outcome,
    /// The best first; those that do not fit last.
    alternatives: Vec<Alternative>,
    /// Whole plans that were nearly as good, the best first.
    runners_up: Vec<RunnerUp>,
}

/// A plan with other contexts.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct RunnerUp {
    contexts: Vec<Context>,
    outcome: Outcome,
}

/// What each model would get.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Outcome {
    tokens_per_second: Vec<f64>,
    /// Seconds.
    first_token: Vec<f64>,
    /// Copies of experts of each layer.
    copies: Vec<u32>,
    /// Layers in main memory.
    layers_in_ram: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Alternative {
    /// The model that is changed; `None` for the machine.
    model: Option<String>,
    change: String,
    /// Bytes of contexts and buffers that it frees; negative if it takes more, 0 if it does not fit.
    frees: i64,
    /// `None` if it does not fit.
    outcome: Option<Outcome>,
    /// How much better the plan would be, as the choice of contexts weighs speed, length and slots.
    better: Option<f64>,
}

/// What of the GPU is taken away to see what the last of it is good for.
const LAST: u64 = 1 << 30;

impl Why {
    /// Looks around a plan of these models.
    #[must_use]
    pub fn of(plan: &Plan, limits: &MemoryConfig, models: &[ModelRequest]) -> Self {
        let mut requests = models.to_vec();
        for (request, planned) in requests.iter_mut().zip(&plan.models) {
            request.context = planned.context;
        }
        let now = worth(plan, &requests);
        let tried = |model: Option<&ModelPlan>, change: String, limits: &MemoryConfig, changed: &[ModelRequest]| {
            let other = attempt(&plan.machine, limits, changed).ok();
            Alternative {
                model: model.map(|model| model.name.clone()),
                change,
                // Of another machine it means nothing.
                frees: other
                    .as_ref()
                    .filter(|_| model.is_some())
                    .map_or(0, |other| freed(plan, other)),
                better: other.as_ref().map(|other| worth(other, changed) - now),
                outcome: other.as_ref().map(Outcome::of),
            }
        };
        let mut alternatives = Vec::new();
        for (index, planned) in plan.models.iter().enumerate() {
            for step in Step::ALL {
                let Some(context) = step.from(planned.context, &requests[index]) else {
                    continue;
                };
                let mut changed = requests.clone();
                changed[index].context = context;
                alternatives.push(tried(
                    Some(planned),
                    described(planned.context, context),
                    limits,
                    &changed,
                ));
            }
            if requests[index].head {
                let mut changed = requests.clone();
                changed[index].head = false;
                alternatives.push(tried(Some(planned), "no drafts".to_owned(), limits, &changed));
            }
        }
        if let Some(budget) = gpu(plan).filter(|budget| *budget > LAST) {
            let less = MemoryConfig {
                vram: MemoryLimit::Bytes(budget - LAST),
                ..*limits
            };
            alternatives.push(tried(
                None,
                format!("a GPU with {} less", bytes(LAST)),
                &less,
                &requests,
            ));
        }
        alternatives.sort_by(|a, b| {
            let key = |alternative: &Alternative| alternative.better.unwrap_or(f64::NEG_INFINITY);
            key(b).total_cmp(&key(a))
        });
        Self {
            models: plan.models.iter().map(|model| model.name.clone()).collect(),
            planned: Outcome::of(plan),
            alternatives,
            runners_up: others(plan, limits, models),
        }
    }
}

/// Whole plans that are shown beside the one.
const RUNNERS_UP: usize = 3;

/// What else the search found.
fn others(plan: &Plan, limits: &MemoryConfig, models: &[ModelRequest]) -> Vec<RunnerUp> {
    let found = runners_up(&plan.machine, limits, models, RUNNERS_UP);
    let tried = found.into_iter().filter_map(|contexts| {
        let mut changed = models.to_vec();
        for (model, context) in changed.iter_mut().zip(&contexts) {
            model.context = *context;
        }
        let other = attempt(&plan.machine, limits, &changed).ok()?;
        Some(RunnerUp {
            contexts,
            outcome: Outcome::of(&other),
        })
    });
    tried.collect()
}

/// The budget of a GPU with memory of its own.
fn gpu(plan: &Plan) -> Option<u64> {
    let tier = plan.tiers.iter().find(|tier| tier.tier == Tier::Gpu)?;
    (!plan.unified).then_some(tier.budget)
}

/// Bytes of contexts and buffers on the GPU, or in main memory without one, that another plan does not take.
fn freed(plan: &Plan, other: &Plan) -> i64 {
    let tier = if plan.device.is_some() { Tier::Gpu } else { Tier::Ram };
    let taken = |plan: &Plan| {
        let of_model = |model: &ModelPlan| -> u64 {
            let kinds = [Kind::Kv, Kind::Recurrent, Kind::Compute];
            kinds.into_iter().map(|kind| model.kind(tier, kind)).sum()
        };
        i64::try_from(plan.models.iter().map(of_model).sum::<u64>()).unwrap_or(i64::MAX)
    };
    taken(plan) - taken(other)
}

fn described(now: Context, then: Context) -> String {
    if now.tokens != then.tokens {
        format!("{} tokens instead of {}", then.tokens, now.tokens)
    } else if now.parallel != then.parallel {
        format!("{} instead of {}", slots(then.parallel), now.parallel)
    } else if now.pool != then.pool {
        let kinds = ["memory for each slot", "one memory for all slots"];
        format!(
            "{} instead of {}",
            kinds[usize::from(then.pool)],
            kinds[usize::from(now.pool)]
        )
    } else if now.batch != then.batch {
        format!("passes of {} tokens instead of {}", then.batch, now.batch)
    } else {
        format!("{} instead of {}", then.kv_type, now.kv_type)
    }
}

fn slots(number: u32) -> String {
    format!("{number} slot{}", if number == 1 { "" } else { "s" })
}

impl Outcome {
    fn of(plan: &Plan) -> Self {
        let copies = |model: &ModelPlan| match model.experts {
            Experts::Cache {
                device: Tier::Gpu,
                capacity,
                ..
            } => capacity,
            _ => 0,
        };
        let in_ram = |model: &ModelPlan| model.gpu_layers.map_or(0, |layers| model.all_layers - layers);
        Self {
            tokens_per_second: plan.models.iter().map(|model| model.decode.tokens_per_second).collect(),
            first_token: plan.models.iter().map(|model| model.first_token).collect(),
            copies: plan.models.iter().map(copies).collect(),
            layers_in_ram: plan.models.iter().map(in_ram).collect(),
        }
    }

    /// What is otherwise than planned, in words.
    fn differences(&self, planned: &Self, names: &[String]) -> String {
        let of_model = |(index, name): (usize, &String)| {
            let mut words = Vec::new();
            let (then, now) = (self.tokens_per_second[index], planned.tokens_per_second[index]);
            if (then - now).abs() >= 0.1 {
                words.push(format!("{then:.1} instead of {now:.1} tokens/s"));
            }
            let (then, now) = (self.first_token[index], planned.first_token[index]);
            if (then - now).abs() >= 0.1 * now {
                words.push(format!("{then:.1} instead of {now:.1} s to the first token of 2,048"));
            }
            let (then, now) = (self.copies[index], planned.copies[index]);
            if then != now {
                let more = if then > now { "more" } else { "fewer" };
                let experts = if then.abs_diff(now) == 1 { "expert" } else { "experts" };
                words.push(format!("copies of {} {more} {experts} per layer", then.abs_diff(now)));
            }
            let (then, now) = (self.layers_in_ram[index], planned.layers_in_ram[index]);
            if then != now {
                words.push(format!("{then} layers in RAM instead of {now}"));
            }
            let words = (!words.is_empty()).then(|| words.join(" and "))?;
            Some(if names.len() == 1 {
                words
            } else {
                format!("{name} with {words}")
            })
        };
        let all: Vec<String> = names.iter().enumerate().filter_map(of_model).collect();
        if all.is_empty() {
            "no other speed".to_owned()
        } else {
            all.join("; ")
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "why: what one change would make of this plan (estimates), the best first"
        )?;
        for alternative in &self.alternatives {
            let amount = bytes(alternative.frees.unsigned_abs());
            let memory = match alternative.frees {
                0 => String::new(),
                1.. => format!(" frees {amount}"),
                _ => format!(" takes {amount} more"),
            };
            let change = match &alternative.model {
                Some(model) if self.models.len() > 1 => format!("{model}: {}", alternative.change),
                _ => alternative.change.clone(),
            };
            match &alternative.outcome {
                None => writeln!(out, "* {change}{memory}: does not fit")?,
                Some(outcome) => {
                    let differences = outcome.differences(&self.planned, &self.models);
                    writeln!(out, "* {change}{memory}: {differences}")?;
                }
            }
        }
        if !self.runners_up.is_empty() {
            writeln!(out, "other plans, the next best first")?;
        }
        for other in &self.runners_up {
            let contexts = self.models.iter().zip(&other.contexts).map(|(name, context)| {
                let of = if self.models.len() > 1 {
                    format!("{name} ")
                } else {
                    String::new()
                };
                format!(
                    "{of}{} {} {} tokens in {}, passes of {}",
                    context.parallel,
                    if context.pool { "sharing" } else { "x" },
                    context.tokens,
                    context.kv_type,
                    context.batch
                )
            });
            let contexts: Vec<String> = contexts.collect();
            let differences = other.outcome.differences(&self.planned, &self.models);
            writeln!(out, "* {}: {differences}", contexts.join("; "))?;
        }
        Ok(())
    }
}
