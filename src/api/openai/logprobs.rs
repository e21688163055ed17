//! How likely tokens were, in OpenAI's two forms.

use serde::Serialize;
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;

use crate::engine::{Candidate, TokenLogprob};

/// The form of chats.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
    /// Local models have no separate refusals.
    refusal: (),
}

#[derive(Debug, Serialize, ToSchema)]
struct ChatToken {
    #[serde(flatten)]
    chosen: ChatCandidate,
    /// Likeliest first.
    top_logprobs: Vec<ChatCandidate>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChatCandidate {
    /// Its bytes as text; what is no character by itself is U+FFFD.
    token: String,
    /// Natural logarithm of the probability, before sampling.
    logprob: f32,
    bytes: Vec<u8>,
}

impl From<&Candidate> for ChatCandidate {
    fn from(candidate: &Candidate) -> Self {
        Self {
            token: text(candidate),
            logprob: candidate.logprob,
            bytes: candidate.bytes.clone(),
        }
    }
}

impl ChatLogprobs {
    pub(super) fn new(tokens: &[TokenLogprob]) -> Self {
        let tokens = tokens.iter().map(|token| ChatToken {
            chosen: (&token.chosen).into(),
            top_logprobs: token.top.iter().map(ChatCandidate::from).collect(),
        });
        Self {
            content: tokens.collect(),
            refusal: (),
        }
    }
}

/// The form of completions: lists with an entry for each token.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// From texts of tokens to their logprobs; the chosen token is among them.
    top_logprobs: Vec<Map<String, Value>>,
    /// Where each token begins in the text of the choice, in characters.
    text_offset: Vec<usize>,
}

impl TextLogprobs {
    /// `offset` is where the first token begins, and becomes where the next one will.
    pub(super) fn new(tokens: &[TokenLogprob], offset: &mut usize) -> Self {
        let mut this = Self::default();
        for token in tokens {
            let chosen = text(&token.chosen);
            this.text_offset.push(*offset);
            // Characters that several tokens share are counted where they begin.
            *offset += token.chosen.bytes.iter().filter(|byte| (**byte & 0xC0) != 0x80).count();
            this.token_logprobs.push(token.chosen.logprob);
            let mut top: Map<String, Value> = Map::new();
            for candidate in token.top.iter().chain([&token.chosen]) {
                let logprob = Number::from_f64(f64::from(candidate.logprob)).map_or(Value::Null, Value::Number);
                top.entry(text(candidate)).or_insert(logprob);
            }
            this.top_logprobs.push(top);
            this.tokens.push(chosen);
        }
        this
    }
}

fn text(candidate: &Candidate) -> String {
    String::from_utf8_lossy(&candidate.bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_tell_the_same() {
        let candidate = |token, bytes: &[u8], logprob| Candidate {
            token,
            bytes: bytes.to_vec(),
            logprob,
        };
        let tokens = [
            TokenLogprob {
                chosen: candidate(1, "né".as_bytes(), -0.5),
                top: vec![candidate(2, b"no", -0.25)],
            },
            TokenLogprob {
                chosen: candidate(3, &[0xF0, 0x9F], -1.0),
                top: vec![],
            },
        ];
        assert_eq!(
            serde_json::to_value(ChatLogprobs::new(&tokens)).unwrap(),
            json!({"refusal": null, "content": [
                {"token": "né", "logprob": -0.5, "bytes": [110, 195, 169], "top_logprobs": [{"token": "no", "logprob": -0.25, "bytes": [110, 111]}]},
                {"token": "\u{FFFD}", "logprob": -1.0, "bytes": [240, 159], "top_logprobs": []},
            ]})
        );
        let mut offset = 3;
        assert_eq!(
            serde_json::to_value(TextLogprobs::new(&tokens, &mut offset)).unwrap(),
            json!({
                "tokens": ["né", "\u{FFFD}"], "token_logprobs": [-0.5, -1.0], "text_offset": [3, 5],
                "top_logprobs": [{"no": -0.25, "né": -0.5}, {"\u{FFFD}": -1.0}],
            })
        );
        assert_eq!(offset, 6);
    }
}
