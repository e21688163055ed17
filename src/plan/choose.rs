//! Chooses contexts, slots, the type of keys and values, and the size of passes, where the configuration leaves them to hearth.
//!
//! What they take is missing for layers and for copies of experts on the GPU. A plan is worth the sum over its models of the
//! logarithm of the estimated tokens per second, less a part of that of the time to the first token, and of what contexts and slots are worth beside that, each times the model's
//! `importance`. The search takes the best single step until none makes the plan better: once from the largest choice,
//! where a tie keeps what is large, and once from the smallest, where the first copies of experts are there already.

use super::memory::{BATCH, Context};
use super::outcome::{ModelPlan, Plan};
use super::place::attempt;
use super::request::ModelRequest;
use crate::config::MemoryConfig;
use crate::host::Machine;
use crate::memory::{Kind, KvType, KvTypes, Tier};

/// What a context of so many tokens costs in speed (natural logarithm): half as much twice, so 8192 tokens are worth 10 % of
/// the speed less than 16,384, and these 5 % less than 32,768.
const CONTEXT: (f64, f64) = (0.1, 16_384.0);
/// What a single slot costs, two half of it.
const SLOT: f64 = 0.1;
/// What it costs that slots share one memory: with eight streams it has 0.78 of the speed (docs/planning.md), and it fills up.
const POOL: f64 = 0.12;
/// What keys and values in [`QUANTISED`] cost.
const ROUNDING: f64 = 0.03;

/// What e times the time to the first token costs.
const FIRST_TOKEN: f64 = 0.1;
/// What a GiB of keys, values and buffers costs where nothing else wants it: no memory is taken for next to nothing.
const GIB: f64 = 0.0015;

/// A pass is not made larger than this, nor smaller than llama.cpp's default.
const LARGEST_BATCH: u32 = 4096;
/// Contexts are not made shorter than this.
const SHORTEST: u32 = 4096;
/// Without a GPU nothing is won by short contexts; longer ones than this would take memory that nobody asked for.
const LONGEST_WITHOUT_GPU: u32 = 32_768;
/// What keys and values may be instead of F16: about half of the bytes.
const QUANTISED: KvTypes = KvTypes::both(KvType::Q8_0);
const EXACT: KvTypes = KvTypes::both(KvType::F16);

/// A single change of a model's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Shorter,
    Longer,
    FewerSlots,
    MoreSlots,
    Quantised,
    Exact,
    Shared,
    Apart,
    SmallerBatch,
    LargerBatch,
}

impl Step {
    pub(super) const ALL: [Self; 10] = [
        Self::Longer,
        Self::Shorter,
        Self::MoreSlots,
        Self::FewerSlots,
        Self::Exact,
        Self::Quantised,
        Self::Apart,
        Self::Shared,
        Self::LargerBatch,
        Self::SmallerBatch,
    ];

    /// What a context of this model is after this step, if there is such a step.
    pub(super) fn from(self, context: Context, model: &ModelRequest) -> Option<Context> {
        let mut next = context;
        match self {
            Self::Shorter => next.tokens = (context.tokens / 2).max(SHORTEST).min(context.tokens),
            Self::Longer => next.tokens = context.tokens.saturating_mul(2),
            Self::FewerSlots => next.parallel = (context.parallel / 2).max(1),
            Self::MoreSlots => next.parallel = context.parallel.saturating_mul(2),
            Self::SmallerBatch => next.batch = (context.batch / 2).max(BATCH).min(context.batch),
            Self::LargerBatch => next.batch = (context.batch * 2).min(LARGEST_BATCH).max(context.batch),
            Self::Quantised if context.kv_type == EXACT && model.takes(QUANTISED).is_ok() => next.kv_type = QUANTISED,
            Self::Shared if context.parallel > 1 => next.pool = true,
            Self::Apart => next.pool = false,
            Self::Exact if context.kv_type == QUANTISED => next.kv_type = EXACT,
            Self::Quantised | Self::Exact | Self::Shared => return None,
        }
        // One alone shares with nobody.
        next.pool &= next.parallel > 1;
        (next != context).then_some(next)
    }
}

/// The contexts of all models, each within what its request allows.
struct Search<'a> {
    machine: &'a Machine,
    limits: &'a MemoryConfig,
    /// With the largest context of each.
    models: Vec<ModelRequest>,
    tried: Tried,
}

/// The requests with contexts that are chosen, as far as they are left to hearth.
pub(super) fn choose(machine: &Machine, limits: &MemoryConfig, models: &[ModelRequest]) -> Vec<ModelRequest> {
    search(machine, limits, models).0
}

/// The best contexts beside those that are chosen, as many as `most`, the best first.
pub(super) fn runners_up(
    machine: &Machine,
    limits: &MemoryConfig,
    models: &[ModelRequest],
    most: usize,
) -> Vec<Vec<Context>> {
    let (chosen, tried) = search(machine, limits, models);
    let chosen: Vec<Context> = chosen.iter().map(|model| model.context).collect();
    let fit = tried
        .into_iter()
        .filter_map(|(contexts, worth)| Some((worth?, contexts)));
    let mut others: Vec<_> = fit.filter(|(_, contexts)| *contexts != chosen).collect();
    others.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    others.truncate(most);
    others.into_iter().map(|(_, contexts)| contexts).collect()
}

/// Contexts that were tried, with what their plan is worth; `None` does not fit.
type Tried = Vec<(Vec<Context>, Option<f64>)>;

fn search(machine: &Machine, limits: &MemoryConfig, models: &[ModelRequest]) -> (Vec<ModelRequest>, Tried) {
    let mut models = models.to_vec();
    if machine.devices.is_empty() {
        for model in &mut models {
            // A prompt is computed in its time there, whatever the passes.
            model.choices.batch = false;
            if model.choices.tokens {
                model.context.tokens = model.context.tokens.min(LONGEST_WITHOUT_GPU);
            }
        }
    }
    if !models.iter().any(|model| model.choices.any()) {
        return (models, Vec::new());
    }
    let mut search = Search {
        machine,
        limits,
        models,
        tried: Vec::new(),
    };
    let most: Vec<Context> = search.models.iter().map(|model| model.context).collect();
    let least = search.least();
    // Each step looks at all models, and a server may have thousands. Without a GPU nothing is won by less.
    let fits = search.worth(&most).is_some();
    if search.models.len() > MOST_MODELS || (machine.devices.is_empty() && fits) {
        return (search.with(if fits { &most } else { &least }), search.tried);
    }
    let found = [most, least].map(|start| search.climb(start));
    let [large, small] = found;
    let best = match (large, small) {
        (Some(large), Some(small)) if small.1 > large.1 + SAME => small.0,
        (Some(large), _) => large.0,
        (None, Some(small)) => small.0,
        // What does not fit even so is told with what could be had.
        (None, None) => search.least(),
    };
    (search.with(&best), search.tried)
}

/// With more models than this there is no search: all get the most, or the least where that does not fit.
const MOST_MODELS: usize = 8;

/// Plans whose worth differs by less are equally good.
const SAME: f64 = 1e-3;

impl Search<'_> {
    fn with(&self, contexts: &[Context]) -> Vec<ModelRequest> {
        let mut models = self.models.clone();
        for (model, context) in models.iter_mut().zip(contexts) {
            model.context = *context;
        }
        models
    }

    /// The smallest choice for every model.
    fn least(&self) -> Vec<Context> {
        let least = |model: &ModelRequest| {
            let mut context = model.context;
            for step in [Step::Shorter, Step::FewerSlots, Step::Quantised] {
                while let Some(next) = self.step(model, context, step) {
                    context = next;
                }
            }
            context
        };
        self.models.iter().map(least).collect()
    }

    /// A step from a context, within what may be chosen.
    fn step(&self, model: &ModelRequest, context: Context, step: Step) -> Option<Context> {
        let free = match step {
            Step::Shorter | Step::Longer => model.choices.tokens,
            Step::FewerSlots | Step::MoreSlots => model.choices.parallel,
            Step::Quantised | Step::Exact => model.choices.kv_type,
            Step::Shared | Step::Apart => model.choices.pool,
            Step::SmallerBatch | Step::LargerBatch => model.choices.batch,
        };
        let mut next = step.from(context, model).filter(|_| free)?;
        next.tokens = next.tokens.min(model.context.tokens);
        next.parallel = next.parallel.min(model.context.parallel);
        (next != context).then_some(next)
    }

    /// The best plan that single steps lead to, each to a better one.
    fn climb(&mut self, start: Vec<Context>) -> Option<(Vec<Context>, f64)> {
        let mut worth = self.worth(&start);
        let mut at = start;
        loop {
            let mut best: Option<(Vec<Context>, f64)> = None;
            for index in 0..self.models.len() {
                for step in Step::ALL {
                    let Some(context) = self.step(&self.models[index], at[index], step) else {
                        continue;
                    };
                    let mut next = at.clone();
                    next[index] = context;
                    let Some(value) = self.worth(&next) else { continue };
                    let better = worth.is_none_or(|worth| value > worth + SAME);
                    if better && best.as_ref().is_none_or(|(_, best)| value > *best) {
                        best = Some((next, value));
                    }
                }
            }
            match best {
                Some((next, value)) => (at, worth) = (next, Some(value)),
                None => return worth.map(|worth| (at, worth)),
            }
        }
    }

    /// What the plan with these contexts is worth; `None` if they do not fit.
    fn worth(&mut self, contexts: &[Context]) -> Option<f64> {
        if let Some((_, worth)) = self.tried.iter().find(|(tried, _)| tried == contexts) {
            return *worth;
        }
        let models = self.with(contexts);
        let worth = attempt(self.machine, self.limits, &models)
            .ok()
            .map(|plan| worth(&plan, &models));
        self.tried.push((contexts.to_vec(), worth));
        worth
    }
}

/// Bytes of keys, values and buffers.
fn taken(model: &ModelPlan) -> u64 {
    let on = |tier| model.kind(tier, Kind::Kv) + model.kind(tier, Kind::Compute);
    on(Tier::Gpu) + on(Tier::Ram)
}

/// What a plan is worth.
pub(super) fn worth(plan: &Plan, models: &[ModelRequest]) -> f64 {
    let of_model = |(planned, model): (&ModelPlan, &ModelRequest)| {
        let context = planned.context;
        let rounding = if context.kv_type == QUANTISED { ROUNDING } else { 0.0 };
        // A model that is hardly there is not worth less than nothing.
        let speed = planned.decode.tokens_per_second.max(0.1).ln() - FIRST_TOKEN * planned.first_token.max(0.001).ln();
        let (cost, tokens) = CONTEXT;
        let short = cost * tokens / f64::from(context.tokens);
        let narrow = SLOT / f64::from(context.parallel) + if context.pool { POOL } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "a weight of two digits")]
        let gib = taken(planned) as f64 / (1_u64 << 30) as f64;
        f64::from(model.importance) * (speed - short - narrow - rounding - GIB * gib)
    };
    plan.models.iter().zip(models).map(of_model).sum()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, machine, pair};
    use super::super::{Choices, plan};
    use super::*;
    use crate::plan::Experts;

    const ALL: Choices = Choices {
        tokens: true,
        parallel: true,
        kv_type: true,
        pool: true,
        batch: true,
    };

    /// Qwen3-Next-80B-A3B and Mag-Mell-12B, as models.toml ships them.
    fn free() -> Vec<ModelRequest> {
        let mut models = pair();
        for model in &mut models {
            model.context = context(65_536, 4, KvType::F16);
            model.choices = ALL;
        }
        models
    }

    fn planned(vram: u64, models: &[ModelRequest]) -> Plan {
        plan(&machine(vram, 100), &MemoryConfig::default(), models).unwrap()
    }

    /// Percent of the experts that have a copy.
    fn copies(model: &ModelPlan) -> u32 {
        match model.experts {
            Experts::Cache { capacity, of, .. } => capacity * 100 / of,
            _ => 0,
        }
    }

    #[test]
    fn cards_hold_what_is_worth_most() {
        for (vram, least) in [(24, 20), (16, 7)] {
            let plan = planned(vram, &free());
            assert!(plan.models.iter().all(|model| model.gpu_layers.is_none()), "{plan}");
            assert!(copies(&plan.models[0]) >= least, "{vram} GiB:\n{plan}");
            assert!(plan.models.iter().all(|model| model.context.tokens >= 16_384), "{plan}");
            // What would bring a tenth of the experts is told.
            assert_eq!(plan.advice.is_empty(), least >= 10, "{plan}");
        }
        // The large model alone.
        let plan = planned(8, &free()[..1]);
        assert!(
            plan.models[0].gpu_layers.is_none() && copies(&plan.models[0]) >= 5,
            "{plan}"
        );
        // Nothing is missing for anything.
        let contexts = planned(96, &free()).models.into_iter().map(|model| model.context);
        let contexts = contexts.map(|context| (context.tokens, context.parallel, context.kv_type));
        assert_eq!(
            contexts.collect::<Vec<_>>(),
            [65_536, 32_768].map(|tokens| (tokens, 4, EXACT))
        );
    }

    #[test]
    fn thousands_of_models_are_not_searched_through() {
        let many: Vec<ModelRequest> = (0..100).flat_map(|_| free()[1..].to_vec()).collect();
        let limits = MemoryConfig::default();
        let chosen = choose(&machine(0, 100), &limits, &many);
        assert!(chosen.iter().all(|model| model.context.parallel == 1), "all do not fit");
    }

    #[test]
    fn what_is_configured_stays() {
        let mut models = free();
        models[0].choices.tokens = false;
        models[1].choices = Choices::default();
        let plan = planned(24, &models);
        assert_eq!(plan.models[0].context.tokens, 65_536);
        assert_eq!(plan.models[1].context, context(65_536, 4, KvType::F16));
    }

    #[test]
    fn speed_goes_where_it_counts() {
        let least = |importance: [u32; 2]| {
            let mut models = free();
            for (model, importance) in models.iter_mut().zip(importance) {
                model.importance = importance;
            }
            let plan = planned(12, &models);
            (copies(&plan.models[0]), plan)
        };
        let ((mixture, of_mixture), (dense, of_dense)) = (least([20, 1]), least([1, 20]));
        assert!(mixture >= dense, "{of_mixture}\n{of_dense}");
        let narrators = [of_mixture, of_dense].map(|plan| plan.models[1].decode.tokens_per_second);
        assert!(narrators[0] <= narrators[1], "{narrators:?}");
    }

    #[test]
    fn without_a_gpu_only_memory_counts() {
        let plan = planned(0, &free());
        assert!(
            plan.models
                .iter()
                .all(|model| model.context == context(32_768, 4, KvType::F16)),
            "{plan}"
        );
        // Where that does not fit, less does.
        let plan = super::super::plan(&machine(0, 64), &MemoryConfig::default(), &free()).unwrap();
        assert!(
            plan.models
                .iter()
                .any(|model| model.context != context(32_768, 4, KvType::F16)),
            "{plan}"
        );
    }

    #[test]
    fn a_choice_cannot_be_bettered_by_a_step() {
        for vram in [12, 16, 24, 32, 48] {
            let chosen = choose(&machine(vram, 100), &MemoryConfig::default(), &free());
            let value = |models: &[ModelRequest]| {
                let plan = attempt(&machine(vram, 100), &MemoryConfig::default(), models).ok()?;
                Some(worth(&plan, models))
            };
            let best = value(&chosen).unwrap();
            for index in 0..chosen.len() {
                for step in Step::ALL {
                    let mut other = chosen.clone();
                    let Some(next) = step.from(other[index].context, &other[index]) else {
                        continue;
                    };
                    if next.tokens > 65_536 || next.parallel > 4 {
                        continue;
                    }
                    other[index].context = next;
                    assert!(
                        value(&other).is_none_or(|value| value <= best + SAME),
                        "{vram}: {step:?}"
                    );
                }
            }
        }
    }
}
