//! How the next token is chosen: parameters, defaults, ranges.
//!
//! Names and meanings are those of llama.cpp's server (`tools/server/README.md` there), so that a configuration can
//! be carried over.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Sampling parameters of one request, complete and in range.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all tokens.
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub typical_p: f32,
    /// 1 is off.
    pub repeat_penalty: f32,
    /// Tokens that the penalties look back upon; -1 is the whole context, 0 is off.
    pub repeat_last_n: i32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    pub dry: DryParams,
    /// 0 is off.
    pub xtc_probability: f32,
    pub xtc_threshold: f32,
    /// Keeps tokens within so many standard deviations of the largest logit; 0 and below is off.
    pub top_n_sigma: f32,
    /// With it the temperature goes from `temperature - range` to `temperature + range`, by the entropy of what may
    /// come; 0 is off.
    pub dynatemp_range: f32,
    pub dynatemp_exponent: f32,
    /// 1 and 2 are the versions of Mirostat, which then takes the place of the chain; 0 is off.
    pub mirostat: u32,
    /// The surprise that Mirostat aims at, in bits.
    pub mirostat_tau: f32,
    /// How fast it learns.
    pub mirostat_eta: f32,
    /// What the chain consists of, in order.
    pub samplers: Vec<SamplerKind>,
    /// `None` draws a fresh seed.
    pub seed: Option<u32>,
    /// Token ids with what is added to their logits before all else; negative infinity bans a token.
    pub logit_bias: Vec<(i32, f32)>,
}

/// A member of the sampling chain, by llama-server's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Of repetition, presence and frequency.
    Penalties,
    Dry,
    TopNSigma,
    TopK,
    #[serde(rename = "typ_p")]
    TypicalP,
    TopP,
    MinP,
    Xtc,
    Temperature,
}

impl SamplerKind {
    /// The chain of llama.cpp's server, with the letter of each.
    const DEFAULT_ORDER: [(Self, &str, char); 9] = [
        (Self::Penalties, "penalties", 'e'),
        (Self::Dry, "dry", 'd'),
        (Self::TopNSigma, "top_n_sigma", 's'),
        (Self::TopK, "top_k", 'k'),
        (Self::TypicalP, "typ_p", 'y'),
        (Self::TopP, "top_p", 'p'),
        (Self::MinP, "min_p", 'm'),
        (Self::Xtc, "xtc", 'x'),
        (Self::Temperature, "temperature", 't'),
    ];

    /// By llama-server's letter.
    ///
    /// # Errors
    /// Says which letters there are.
    pub fn from_letter(letter: char) -> Result<Self, String> {
        let found = Self::DEFAULT_ORDER.iter().find(|(_, _, other)| *other == letter);
        found.map(|(kind, ..)| *kind).ok_or_else(|| {
            let known: String = Self::DEFAULT_ORDER.iter().map(|(_, _, letter)| letter).collect();
            format!("`{letter}` is not the letter of a sampler; there are {known}")
        })
    }
}

impl FromStr for SamplerKind {
    type Err = String;

    /// By name, in any of llama-server's spellings.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
        let name = match plain(text).as_str() {
            "nucleus" => "topp".to_owned(),
            "temp" => "temperature".to_owned(),
            "typ" | "typical" | "typicalp" => "typp".to_owned(),
            _ => plain(text),
        };
        let found = Self::DEFAULT_ORDER.iter().find(|(_, other, _)| plain(other) == name);
        found.map(|(kind, ..)| *kind).ok_or_else(|| {
            let known = Self::DEFAULT_ORDER.map(|(_, name, _)| name).join(", ");
            // What a client sends may be long.
            let text: String = text.chars().take(64).collect();
            format!("`{text}` is not the name of a sampler; there are {known}")
        })
    }
}

impl<'de> Deserialize<'de> for SamplerKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Parameters of the DRY sampler ("don't repeat yourself").
#[derive(Debug, Clone, PartialEq)]
pub struct DryParams {
    /// 0 is off.
    pub multiplier: f32,
    pub base: f32,
    pub allowed_length: i32,
    /// -1 is the whole context, 0 is off.
    pub penalty_last_n: i32,
    pub sequence_breakers: Vec<String>,
}

impl Default for Sampling {
    /// The defaults of llama.cpp's server.
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry: DryParams::default(),
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            top_n_sigma: -1.0,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            samplers: SamplerKind::DEFAULT_ORDER.map(|(kind, ..)| kind).to_vec(),
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

impl Default for DryParams {
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            penalty_last_n: -1,
            sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
        }
    }
}

/// Sampling parameters as a configuration or a request gives them: only what is set counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingOverrides {
    /// 0 is greedy; higher is more varied. 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Keep the k likeliest tokens; 0 keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens that together have this probability. 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this share of the likeliest. 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Locally typical sampling; 1 is off. 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typical_p: Option<f32>,
    /// Divides the logits of repeated tokens; 1 is off. 0 to 10, not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f32>,
    /// Tokens that the penalties look back upon; -1 is the whole context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_last_n: Option<i32>,
    /// -2 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    /// -2 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Strength of DRY; 0 is off. 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_multiplier: Option<f32>,
    /// Growth of DRY's penalty with the length of the repetition. 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_base: Option<f32>,
    /// Repetitions up to this length are free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_allowed_length: Option<i32>,
    /// Tokens that DRY looks back upon; -1 is the whole context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_penalty_last_n: Option<i32>,
    /// Texts that end a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// Chance of XTC removing the likeliest tokens; 0 is off. 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_probability: Option<f32>,
    /// Tokens above this probability may be removed by XTC. 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_threshold: Option<f32>,
    /// Keep tokens within so many standard deviations of the largest logit; 0 and below is off. -1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_n_sigma: Option<f32>,
    /// The temperature varies by so much, with the entropy of what may come; 0 is off. 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynatemp_range: Option<f32>,
    /// How entropy becomes temperature. 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynatemp_exponent: Option<f32>,
    /// Mirostat 1 or 2 in the place of the other samplers; 0 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat: Option<u32>,
    /// The surprise that Mirostat aims at, in bits. 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat_tau: Option<f32>,
    /// How fast Mirostat learns. 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat_eta: Option<f32>,
    /// What the chain consists of, in order; 32 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samplers: Option<Vec<SamplerKind>>,
    /// Same seed and prompt, same answer (as far as batching allows).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Upper bound of generated tokens; without it an answer may fill the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OutOfRange {
    /// Its name.
    pub field: &'static str,
    pub message: String,
}

/// DRY and logit bias are built per request: bounds keep a request from costing more than its answer.
const MAX_BREAKERS: usize = 64;
const MAX_BREAKER_BYTES: usize = 40;
const MAX_LOGIT_BIAS: usize = 1024;
const MAX_SAMPLERS: usize = 32;

impl SamplingOverrides {
    /// These overrides where set, `defaults` elsewhere.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            typical_p: self.typical_p.or(defaults.typical_p),
            repeat_penalty: self.repeat_penalty.or(defaults.repeat_penalty),
            repeat_last_n: self.repeat_last_n.or(defaults.repeat_last_n),
            presence_penalty: self.presence_penalty.or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(defaults.frequency_penalty),
            dry_multiplier: self.dry_multiplier.or(defaults.dry_multiplier),
            dry_base: self.dry_base.or(defaults.dry_base),
            dry_allowed_length: self.dry_allowed_length.or(defaults.dry_allowed_length),
            dry_penalty_last_n: self.dry_penalty_last_n.or(defaults.dry_penalty_last_n),
            dry_sequence_breakers: self
                .dry_sequence_breakers
                .or_else(|| defaults.dry_sequence_breakers.clone()),
            xtc_probability: self.xtc_probability.or(defaults.xtc_probability),
            xtc_threshold: self.xtc_threshold.or(defaults.xtc_threshold),
            top_n_sigma: self.top_n_sigma.or(defaults.top_n_sigma),
            dynatemp_range: self.dynatemp_range.or(defaults.dynatemp_range),
            dynatemp_exponent: self.dynatemp_exponent.or(defaults.dynatemp_exponent),
            mirostat: self.mirostat.or(defaults.mirostat),
            mirostat_tau: self.mirostat_tau.or(defaults.mirostat_tau),
            mirostat_eta: self.mirostat_eta.or(defaults.mirostat_eta),
            samplers: self.samplers.or_else(|| defaults.samplers.clone()),
            seed: self.seed.or(defaults.seed),
            max_tokens: self.max_tokens.or(defaults.max_tokens),
        }
    }

    /// Names every parameter that is out of range: (field, message).
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut range = |field, value: Option<f32>, low: f32, high: f32| {
            if let Some(value) = value
                && !(low..=high).contains(&value)
            {
                problems.push((
                    field,
                    format!("`{field}` is {value}, but must be between {low} and {high}"),
                ));
            }
        };
        range("temperature", self.temperature, 0.0, 10.0);
        range("top_p", self.top_p, 0.0, 1.0);
        range("min_p", self.min_p, 0.0, 1.0);
        range("typical_p", self.typical_p, 0.0, 1.0);
        range("repeat_penalty", self.repeat_penalty, 0.01, 10.0);
        range("presence_penalty", self.presence_penalty, -2.0, 2.0);
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0);
        range("dry_multiplier", self.dry_multiplier, 0.0, 100.0);
        range("dry_base", self.dry_base, 1.0, 100.0);
        range("xtc_probability", self.xtc_probability, 0.0, 1.0);
        range("xtc_threshold", self.xtc_threshold, 0.0, 1.0);
        range("top_n_sigma", self.top_n_sigma, -1.0, 100.0);
        range("dynatemp_range", self.dynatemp_range, 0.0, 10.0);
        range("dynatemp_exponent", self.dynatemp_exponent, 0.0, 100.0);
        range("mirostat_tau", self.mirostat_tau, 0.0, 100.0);
        range("mirostat_eta", self.mirostat_eta, 0.0, 1.0);

        let mut whole = |field, value: Option<i64>, low: i64| {
            let high = i64::from(i32::MAX);
            if let Some(value) = value
                && !(low..=high).contains(&value)
            {
                problems.push((
                    field,
                    format!("`{field}` is {value}, but must be between {low} and {high}"),
                ));
            }
        };
        whole("top_k", self.top_k.map(i64::from), 0);
        whole("repeat_last_n", self.repeat_last_n.map(i64::from), -1);
        whole("dry_allowed_length", self.dry_allowed_length.map(i64::from), 0);
        whole("dry_penalty_last_n", self.dry_penalty_last_n.map(i64::from), -1);
        whole("max_tokens", self.max_tokens.map(i64::from), 1);

        if let Some(version @ 3..) = self.mirostat {
            problems.push((
                "mirostat",
                format!("`mirostat` is {version}, but must be 0 (off), 1 or 2"),
            ));
        }
        if self
            .samplers
            .as_ref()
            .is_some_and(|samplers| samplers.len() > MAX_SAMPLERS)
        {
            problems.push(("samplers", format!("`samplers` has more than {MAX_SAMPLERS} entries")));
        }
        if let Some(breakers) = &self.dry_sequence_breakers {
            let field = "dry_sequence_breakers";
            if breakers.len() > MAX_BREAKERS {
                problems.push((field, format!("`{field}` has more than {MAX_BREAKERS} entries")));
            }
            if breakers
                .iter()
                .any(|text| text.is_empty() || text.len() > MAX_BREAKER_BYTES || text.contains('\0'))
            {
                problems.push((
                    field,
                    format!("each entry of `{field}` must have 1 to {MAX_BREAKER_BYTES} bytes and no NUL"),
                ));
            }
        }
        problems
    }

    /// Completes the overrides with llama-server's defaults.
    ///
    /// # Errors
    /// The first parameter that is out of range.
    pub fn resolve(&self, logit_bias: Vec<(i32, f32)>) -> Result<Sampling, OutOfRange> {
        if let Some((field, message)) = self.problems().into_iter().next() {
            return Err(OutOfRange { field, message });
        }
        if logit_bias.len() > MAX_LOGIT_BIAS {
            return Err(OutOfRange {
                field: "logit_bias",
                message: format!("`logit_bias` has more than {MAX_LOGIT_BIAS} entries"),
            });
        }
        let allowed = |bias: f32| bias == f32::NEG_INFINITY || (-100.0..=100.0).contains(&bias);
        if let Some((token, bias)) = logit_bias.iter().find(|(_, bias)| !allowed(*bias)) {
            return Err(OutOfRange {
                field: "logit_bias",
                message: format!("the bias {bias} of token {token} is not between -100 and 100"),
            });
        }
        let base = Sampling::default();
        let dry = DryParams::default();
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            typical_p: self.typical_p.unwrap_or(base.typical_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            repeat_last_n: self.repeat_last_n.unwrap_or(base.repeat_last_n),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            dry: DryParams {
                multiplier: self.dry_multiplier.unwrap_or(dry.multiplier),
                base: self.dry_base.unwrap_or(dry.base),
                allowed_length: self.dry_allowed_length.unwrap_or(dry.allowed_length),
                penalty_last_n: self.dry_penalty_last_n.unwrap_or(dry.penalty_last_n),
                sequence_breakers: self.dry_sequence_breakers.clone().unwrap_or(dry.sequence_breakers),
            },
            xtc_probability: self.xtc_probability.unwrap_or(base.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(base.xtc_threshold),
            top_n_sigma: self.top_n_sigma.unwrap_or(base.top_n_sigma),
            dynatemp_range: self.dynatemp_range.unwrap_or(base.dynatemp_range),
            dynatemp_exponent: self.dynatemp_exponent.unwrap_or(base.dynatemp_exponent),
            mirostat: self.mirostat.unwrap_or(base.mirostat),
            mirostat_tau: self.mirostat_tau.unwrap_or(base.mirostat_tau),
            mirostat_eta: self.mirostat_eta.unwrap_or(base.mirostat_eta),
            samplers: self.samplers.clone().unwrap_or(base.samplers),
            seed: self.seed,
            logit_bias,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_have_all_spellings_of_llama_server() {
        for (kind, spellings) in [
            (SamplerKind::TopK, &["top_k", "top-k", "topk", "TOP_K"][..]),
            (SamplerKind::TopP, &["top_p", "nucleus"]),
            (SamplerKind::TypicalP, &["typ_p", "typ-p", "typ", "typical_p"]),
            (SamplerKind::TopNSigma, &["top_n_sigma", "top-n-sigma"]),
            (SamplerKind::Temperature, &["temperature", "temp"]),
        ] {
            for spelling in spellings {
                assert_eq!(spelling.parse(), Ok(kind), "{spelling}");
            }
        }
        for (kind, name, letter) in SamplerKind::DEFAULT_ORDER {
            // What the configuration shows can be read again.
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
            assert_eq!(name.parse(), Ok(kind));
            assert_eq!(SamplerKind::from_letter(letter), Ok(kind));
        }
        assert!("infill".parse::<SamplerKind>().is_err());
        assert!(SamplerKind::from_letter('i').is_err());
    }

    #[test]
    fn biases_are_in_range_or_bans() {
        let resolve = |bias| SamplingOverrides::default().resolve(vec![(1, bias)]);
        assert!(resolve(-100.0).is_ok() && resolve(f32::NEG_INFINITY).is_ok());
        for bias in [100.1, -101.0, f32::INFINITY, f32::NAN] {
            assert!(resolve(bias).is_err(), "{bias}");
        }
    }
}
