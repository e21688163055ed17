//! Reads the metadata keys of one architecture.

use super::error::model;
use super::{Gguf, GgufError, Value};

/// Reads the keys of one architecture.
pub(super) struct Keys<'a> {
    pub(super) gguf: &'a Gguf,
    /// The architecture.
    pub(super) prefix: &'a str,
}

impl Keys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A number that may be missing (0); of an array with one number per layer, the largest.
    pub(super) fn number(&self, name: &str, limit: u32) -> Result<u32, GgufError> {
        let key = self.key(name);
        let number = match self.gguf.get(&key) {
            None => Some(0),
            Some(Value::Array(array)) => array
                .iter()
                .map(|value| value.as_u64())
                .try_fold(0, |largest, value| Some(value?.max(largest))),
            Some(value) => value.as_u64(),
        };
        match number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number <= limit)
        {
            Some(number) => Ok(number),
            None => Err(model(self.gguf, &key, &format!("is not a number from 0 to {limit}"))),
        }
    }

    /// A number that must be there, and is not 0.
    pub(super) fn required(&self, name: &str, limit: u32) -> Result<u32, GgufError> {
        match self.number(name, limit)? {
            0 => Err(model(self.gguf, &self.key(name), "is missing or zero")),
            number => Ok(number),
        }
    }

    /// What is wrong with a key of the architecture.
    pub(super) fn fault(&self, name: &str, problem: &str) -> GgufError {
        model(self.gguf, &self.key(name), problem)
    }
}
