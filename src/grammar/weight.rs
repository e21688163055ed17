//! What it takes llama.cpp to read a JSON value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What values of a request may weigh; the heaviest take a second.
pub const MAX_WEIGHT: u64 = 200_000;

/// Values within a value. Keys weigh more the more there are: llama.cpp searches all keys of an object for each one.
struct Weight(u64);

/// How heavy a value is.
#[must_use]
pub fn weight(value: &Value) -> u64 {
    Weight::deserialize(value).map_or(u64::MAX, |weight| weight.0)
}

/// How heavy the value of a JSON text is; `None` if it is none, or nested too deep to be read by recursion.
#[must_use]
pub fn weight_of_text(text: &str) -> Option<u64> {
    serde_json::from_str(text).ok().map(|weight: Weight| weight.0)
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Weigher)
    }
}

struct Weigher;

impl<'de> Visitor<'de> for Weigher {
    type Value = Weight;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_str<E>(self, _: &str) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Weight, A::Error> {
        let mut sum: u64 = 1;
        while let Some(Weight(weight)) = items.next_element()? {
            sum = sum.saturating_add(weight);
        }
        Ok(Weight(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Weight, A::Error> {
        let (mut sum, mut keys): (u64, u64) = (1, 0);
        while let Some((_, Weight(weight))) = fields.next_entry::<Weight, Weight>()? {
            sum = sum.saturating_add(weight);
            keys += 1;
        }
        Ok(Weight(sum.saturating_add(keys.saturating_mul(keys) / 64)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_large_objects_weigh_most() {
        let value = json!({"a": [1, null, "x", {"b": -0.5}], "c": true});
        assert_eq!((weight(&value), weight_of_text(&value.to_string())), (8, Some(8)));
        let keys = |count: usize| Value::Object((0..count).map(|key| (key.to_string(), json!(0))).collect());
        assert!(weight(&keys(1000)) < MAX_WEIGHT / 10 && weight(&keys(10_000)) > MAX_WEIGHT);
        assert!(weight(&json!(vec![0; 100_000])) < MAX_WEIGHT && weight(&json!(vec![0; 300_000])) > MAX_WEIGHT);
    }

    #[test]
    fn what_llama_cpp_does_not_read_has_no_weight() {
        for text in [
            "",
            "{",
            "1e999",
            r#""\ud800""#,
            r#"{"\ud800": 1}"#,
            &"[".repeat(1_000_000),
        ] {
            assert_eq!(weight_of_text(text), None);
        }
        assert_eq!(weight_of_text(&("[".repeat(5000) + &"]".repeat(5000))), None);
    }
}
