//! What the endpoints for embeddings share: their input, and how vectors are normalised.

use serde_json::Value;

use super::error::ApiError;
use super::limits;
use crate::engine::{Prompt, Token};

/// The texts of a field: a text, a list of texts, a list of token ids, or a list of such lists and texts.
pub(super) fn texts(field: &str, value: &Value) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || {
        let message = format!("`{field}` must be a text, a list of token ids, or a list of such");
        ApiError::field(field, message)
    };
    let list = match value {
        Value::Array(list) if !list.is_empty() && !list[0].is_number() => list.as_slice(),
        other => std::slice::from_ref(other),
    };
    if list.len() > limits::EMBEDDINGS {
        let message = format!("`{field}` has more than {} texts", limits::EMBEDDINGS);
        return Err(ApiError::field(field, message));
    }
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Ok(Prompt::Text {
            text: text.clone(),
            add_special: true,
        }),
        Value::String(_) => Err(ApiError::field(field, format!("`{field}` has an empty text"))),
        Value::Array(tokens) if !tokens.is_empty() => {
            let token = |token: &Value| Token::try_from(token.as_i64()?).ok();
            let tokens: Option<Vec<Token>> = tokens.iter().map(token).collect();
            Ok(Prompt::Tokens(tokens.ok_or_else(wrong)?))
        }
        _ => Err(wrong()),
    };
    list.iter().map(text).collect()
}

/// What a vector's length is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Norm {
    /// As the model gives it.
    None,
    /// The largest number is what a 16-bit integer holds.
    Max,
    /// The sum of the numbers is 1.
    Taxicab,
    Euclidean,
    P(f64),
}

impl Norm {
    /// By llama-server's number.
    pub(super) fn from_number(number: i64) -> Result<Self, ApiError> {
        match number {
            -1 => Ok(Self::None),
            0 => Ok(Self::Max),
            1 => Ok(Self::Taxicab),
            2 => Ok(Self::Euclidean),
            #[expect(clippy::cast_precision_loss, reason = "small")]
            3..=64 => Ok(Self::P(number as f64)),
            _ => {
                let message = format!("`embd_normalize` is {number}, but must be from -1 to 64");
                Err(ApiError::field("embd_normalize", message))
            }
        }
    }

    /// Scales a vector; one of zeros stays so.
    pub(super) fn apply(self, vector: &mut [f32]) {
        let numbers = vector.iter().map(|number| f64::from(number.abs()));
        let length: f64 = match self {
            Self::None => return,
            Self::Max => numbers.fold(0.0, f64::max) / 32760.0,
            Self::Taxicab => numbers.sum(),
            Self::Euclidean => numbers.map(|number| number * number).sum::<f64>().sqrt(),
            Self::P(power) => numbers.map(|number| number.powf(power)).sum::<f64>().powf(1.0 / power),
        };
        if length > 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "the precision of the result")]
            vector
                .iter_mut()
                .for_each(|number| *number = (f64::from(*number) / length) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_come_in_many_forms() {
        let count = |value: Value| texts("input", &value).map(|texts| texts.len());
        for (value, expect) in [
            (json!("a"), 1),
            (json!(["a", "b"]), 2),
            (json!([1, 2, 3]), 1),
            (json!([[1], [2, 3], "a"]), 3),
        ] {
            assert_eq!(count(value.clone()).unwrap(), expect, "{value}");
        }
        for value in [
            json!(null),
            json!(""),
            json!([]),
            json!(["a", ""]),
            json!([[]]),
            json!([1, "a"]),
            json!({}),
            json!([1.5]),
            json!(vec!["a"; limits::EMBEDDINGS + 1]),
        ] {
            assert!(count(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn lengths_are_as_asked() {
        let normed = |norm: Norm| {
            let mut vector = [3.0, -4.0];
            norm.apply(&mut vector);
            vector
        };
        assert_eq!(normed(Norm::None), [3.0, -4.0]);
        assert_eq!(normed(Norm::Euclidean), [0.6, -0.8]);
        assert_eq!(normed(Norm::Max), [24570.0, -32760.0]);
        assert!((normed(Norm::Taxicab)[0] - 3.0 / 7.0).abs() < 1e-6);
        assert!((normed(Norm::P(3.0))[1] + 4.0 / 91f32.cbrt()).abs() < 1e-6);
        let mut zeros = [0.0; 3];
        Norm::Euclidean.apply(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}
