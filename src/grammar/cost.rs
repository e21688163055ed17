//! What it costs llama.cpp to read a JSON value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What the values of a request may cost; the costliest take a second.
pub const MAX_COST: u64 = 200_000;

/// Values within a value. Keys cost more the more there are: llama.cpp searches all keys of an object for each one.
struct Cost(u64);

/// What a value costs.
#[must_use]
pub fn cost(value: &Value) -> u64 {
    Cost::deserialize(value).map_or(u64::MAX, |cost| cost.0)
}

/// What the value of a JSON text costs; `None` if it is none, or nested too deep to be read by recursion.
#[must_use]
pub fn cost_of_text(text: &str) -> Option<u64> {
    serde_json::from_str(text).ok().map(|cost: Cost| cost.0)
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reckoner)
    }
}

struct Reckoner;

impl<'de> Visitor<'de> for Reckoner {
    type Value = Cost;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Cost, E> {
        Ok(Cost(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Cost, E> {
        Ok(Cost(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Cost, E> {
        Ok(Cost(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Cost, E> {
        Ok(Cost(1))
    }

    fn visit_str<E>(self, _: &str) -> Result<Cost, E> {
        Ok(Cost(1))
    }

    fn visit_unit<E>(self) -> Result<Cost, E> {
        Ok(Cost(1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cost, A::Error> {
        let mut sum: u64 = 1;
        while let Some(Cost(cost)) = items.next_element()? {
            sum = sum.saturating_add(cost);
        }
        Ok(Cost(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Cost, A::Error> {
        let (mut sum, mut keys): (u64, u64) = (1, 0);
        while let Some((_, Cost(cost))) = fields.next_entry::<Cost, Cost>()? {
            sum = sum.saturating_add(cost);
            keys += 1;
        }
        Ok(Cost(sum.saturating_add(keys.saturating_mul(keys) / 64)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_large_objects_cost_most() {
        let value = json!({"a": [1, null, "x", {"b": -0.5}], "c": true});
        assert_eq!((cost(&value), cost_of_text(&value.to_string())), (8, Some(8)));
        let keys = |count: usize| Value::Object((0..count).map(|key| (key.to_string(), json!(0))).collect());
        assert!(cost(&keys(1000)) < MAX_COST / 10 && cost(&keys(10_000)) > MAX_COST);
        assert!(cost(&json!(vec![0; 100_000])) < MAX_COST && cost(&json!(vec![0; 300_000])) > MAX_COST);
    }

    #[test]
    fn what_llama_cpp_does_not_read_has_no_cost() {
        for text in [
            "",
            "{",
            "1e999",
            r#""\ud800""#,
            r#"{"\ud800": 1}"#,
            &"[".repeat(1_000_000),
        ] {
            assert_eq!(cost_of_text(text), None);
        }
        assert_eq!(cost_of_text(&("[".repeat(5000) + &"]".repeat(5000))), None);
    }
}
