//! What memory is for and where it lies: plain types that the configuration, plans and engines share.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Where something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    Gpu,
    Ram,
}

impl Tier {
    /// For labels, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Ram => "ram",
        }
    }

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpu => "GPU",
            Self::Ram => "RAM",
        }
    }
}

/// What memory is for, as llama.cpp tells its buffers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// All weights but routed experts.
    Weights,
    /// Routed experts.
    Experts,
    /// Copies of routed experts.
    ExpertCache,
    /// Keys and values.
    Kv,
    /// State of recurrent layers.
    Recurrent,
    /// Compute buffers, and in main memory the logits that are handed out.
    Compute,
}

impl Kind {
    /// For labels, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Experts => "experts",
            Self::ExpertCache => "expert-cache",
            Self::Kv => "kv",
            Self::Recurrent => "recurrent",
            Self::Compute => "compute",
        }
    }

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Experts => "routed experts",
            Self::ExpertCache => "expert cache",
            Self::Kv => "keys and values",
            Self::Recurrent => "recurrent state",
            Self::Compute => "compute buffers",
        }
    }
}

/// A part of a model in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// For tables: a part of the weights, or of the context.
    pub component: &'static str,
    pub kind: Kind,
    pub tier: Tier,
    pub bytes: u64,
}

/// Data type of keys or values: those of which llama.cpp can make both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KvType {
    F32,
    #[default]
    F16,
    Bf16,
    Q8_0,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
    Iq4Nl,
}

impl KvType {
    /// All of them, the most precise first.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
        Self::Iq4Nl,
    ];

    /// llama.cpp's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q5_1 => "q5_1",
            Self::Q5_0 => "q5_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_0 => "q4_0",
            Self::Iq4Nl => "iq4_nl",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The data types of keys and of values. As text: `q8_0` for both, `q8_0/q4_0` for keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvTypes {
    pub keys: KvType,
    pub values: KvType,
}

impl KvTypes {
    /// One type for both.
    #[must_use]
    pub const fn both(kind: KvType) -> Self {
        Self {
            keys: kind,
            values: kind,
        }
    }
}

impl fmt::Display for KvTypes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.keys.name())?;
        if self.keys != self.values {
            write!(out, "/{}", self.values.name())?;
        }
        Ok(())
    }
}

impl FromStr for KvTypes {
    /// The name that no type has.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = |name: &str| KvType::from_name(name.trim()).ok_or_else(|| name.trim().to_owned());
        match text.split_once('/') {
            None => Ok(Self::both(kind(text)?)),
            Some((keys, values)) => Ok(Self {
                keys: kind(keys)?,
                values: kind(values)?,
            }),
        }
    }
}

impl Serialize for KvTypes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An amount of memory in binary units, with one decimal.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{number} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}
