//! Who gets an entry: policies over plain data, one object per layer.
//!
//! A [`Policy`] sees which experts the tokens of its layer select and gives each expert a value. What to do with the values
//! is the same for all of them, and in [`LayerCache`]: an expert takes a free entry, or that of the resident with the least
//! value if the policy says that the change pays, and only so many per token; for some policies, only so many per token in
//! the long run, too. Misses are computed on the CPU and never waited for; an admission pays off from a later token on.
//!
//! Numbers that led to the defaults are in `docs/expert-policies.md`.

mod benefit;
mod budget;
mod counts;
mod gate;
mod layer;
mod lfu_decay;
mod lru;
mod pairs;
mod predictive;
mod static_heat;

pub use benefit::Benefit;
pub use budget::BudgetConfig;
pub use counts::DecayingCounts;
pub use gate::{Gate, GateConfig, Overhead, break_even};
pub use layer::{LayerCache, LayerCounts};
pub use lfu_decay::LfuDecay;
pub use lru::Lru;
pub use predictive::Predictive;
pub use static_heat::StaticHeat;

/// Gives the experts of one layer their value.
pub trait Policy: std::fmt::Debug + Send {
    /// Takes in the experts that one decoded token selected. Unknown ones are ignored.
    fn observe(&mut self, experts: &[u32]);

    /// Takes in a prompt: `counts[expert]` of its `tokens` tokens selected the expert, and the `last` of them those.
    fn observe_prompt(&mut self, counts: &[u32], tokens: u32, last: &[u32]);

    /// What an entry for this expert is worth, in a unit of the policy's own; 0 is nothing.
    fn value(&self, expert: u32) -> f64;

    /// Whether a newcomer of that value shall take the entry of a resident of that value. `left` is the share of the budget
    /// that is left, 0 to 1; 1 without a budget.
    fn pays(&self, newcomer: f64, resident: f64, left: f64) -> bool {
        let _ = left;
        newcomer > resident
    }

    /// Whether an expert may become worth an entry without being selected.
    fn looks_ahead(&self) -> bool {
        false
    }

    /// Whether uploads that evict an expert are limited by [`PolicyConfig::budget`].
    fn has_budget(&self) -> bool {
        false
    }
}

/// The policies by name, as in `experts.policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// The experts that a heat map names, for ever.
    Static,
    /// The experts that were selected last.
    Lru,
    /// The experts that were selected most, with the past fading.
    #[default]
    LfuDecay,
    /// The experts that are likely to be selected next.
    Predictive,
    /// The experts whose copies are expected to bring the most hits, with few uploads.
    Benefit,
}

/// Bytes that may be uploaded for each token without a second thought: less than a millisecond over PCIe 4.
const CHEAP_PER_TOKEN: u64 = 16 << 20;

impl PolicyKind {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 5] = [Self::Static, Self::Lru, Self::LfuDecay, Self::Predictive, Self::Benefit];

    /// What is best for a model of which one expert in each layer takes so many bytes together. Where uploads are cheap the
    /// next token decides, with up to two of them per layer and token; otherwise few of them have to bring as much as they can.
    #[must_use]
    pub fn for_model(entry_bytes: u64) -> Self {
        match entry_bytes.saturating_mul(2) <= CHEAP_PER_TOKEN {
            true => Self::Predictive,
            false => Self::Benefit,
        }
    }

    /// As in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Lru => "lru",
            Self::LfuDecay => "lfu-decay",
            Self::Predictive => "predictive",
            Self::Benefit => "benefit",
        }
    }
}

/// How entries are given away in one layer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct PolicyConfig {
    pub kind: PolicyKind,
    /// Tokens after which half of a selection's weight is gone (`lfu-decay`, `predictive`).
    pub half_life: f64,
    /// How many times hotter than its victim a newcomer must be (`lfu-decay`, `predictive`).
    pub hysteresis: f64,
    /// Uploads per layer and decoded token at most.
    pub uploads_per_token: usize,
    /// Uploads per layer at most when a prompt has ended, before its first token is decoded; with a budget, all that is left
    /// of it.
    pub uploads_per_prompt: usize,
    /// Uploads that evict an expert, in the long run (`benefit`).
    pub budget: BudgetConfig,
    /// Tokens of decoding that a prompt's routing weighs at most, and the heat of earlier runs (`lfu-decay`, `predictive`,
    /// `benefit`).
    pub prompt_weight: f64,
    /// Switches a layer off below break-even.
    pub gate: GateConfig,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            kind: PolicyKind::default(),
            half_life: 16.0,
            hysteresis: 1.3,
            uploads_per_token: 2,
            uploads_per_prompt: 8,
            budget: BudgetConfig::default(),
            prompt_weight: 16.0,
            gate: GateConfig::default(),
        }
    }
}

impl PolicyConfig {
    /// The policy of a layer with that many experts. `heat` is what earlier runs know about them, by expert in any unit:
    /// all there is for `static`, where the others begin.
    #[must_use]
    pub fn build(&self, experts: usize, heat: Option<&[f32]>) -> Box<dyn Policy> {
        match self.kind {
            PolicyKind::Static => Box::new(StaticHeat::new(experts, heat.unwrap_or_default())),
            PolicyKind::Lru => Box::new(Lru::new(experts, heat.unwrap_or_default())),
            PolicyKind::LfuDecay => Box::new(LfuDecay::new(experts, heat.unwrap_or_default(), self)),
            PolicyKind::Predictive => Box::new(Predictive::new(experts, heat.unwrap_or_default(), self)),
            PolicyKind::Benefit => Box::new(Benefit::new(experts, heat.unwrap_or_default(), self)),
        }
    }
}
