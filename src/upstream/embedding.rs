//! Vectors of texts, which a server makes.

use std::sync::Arc;

use futures_util::future::FutureExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::backend::{Running, Shared, begin};
use super::fault::{About, Fault};
use super::replicas::Replica;
use super::wire::{Embedding, Embeddings};
use crate::engine::{self, EngineError, Prompt};
use crate::generation::GenerationError;

/// Asks until a server has made the vectors of these texts.
pub(super) async fn embed(shared: Arc<Shared>, texts: Vec<Prompt>) -> Result<engine::Embeddings, EngineError> {
    let mut running = Running::new(&shared);
    let started = Instant::now();
    let asks = |replica| ask(&shared, replica, &texts, started).boxed();
    let asked = tokio::select! {
        asked = begin(&shared, asks) => asked,
        () = shared.stopped() => Err(EngineError::ShuttingDown.into()),
    };
    match asked {
        Ok((lease, embeddings)) => {
            lease.succeeded();
            running.how = "stop";
            shared.metrics.prompt_tokens.inc_by(embeddings.tokens.into());
            shared.metrics.e2e.observe(started.elapsed().as_secs_f64());
            Ok(embeddings)
        }
        Err(error) => {
            running.how = "error";
            Err(match error {
                GenerationError::Engine(error) => error,
                GenerationError::InvalidRequest { message, .. } => EngineError::InvalidRequest {
                    field: "input",
                    message,
                },
                other => EngineError::Upstream {
                    model: shared.name.clone(),
                    reason: other.to_string(),
                    retry_after: None,
                },
            })
        }
    }
}

/// Asks one server.
async fn ask(
    shared: &Shared,
    replica: Arc<Replica>,
    texts: &[Prompt],
    started: Instant,
) -> Result<engine::Embeddings, Fault> {
    let client = &replica.client;
    let input: Vec<Value> = texts
        .iter()
        .map(|text| match text {
            Prompt::Text { text, .. } => json!(text),
            Prompt::Tokens(tokens) => json!(tokens),
        })
        .collect();
    let model = client.config.model.as_deref().unwrap_or(&shared.name);
    let body = json!({"model": model, "input": input, "encoding_format": "float"});
    let end = started + client.config.total_timeout;
    let begin = end.min(Instant::now() + client.config.first_byte_timeout);
    let answer = client
        .ask("embeddings", body.to_string().into_bytes(), begin, end)
        .await?;
    read(client.about(), &answer, texts.len())
}

/// The vectors of an answer, one for each text.
fn read(about: About<'_>, answer: &[u8], texts: usize) -> Result<engine::Embeddings, Fault> {
    let answer: Embeddings = serde_json::from_slice(answer)
        .map_err(|error| about.nonsense(format!("its vectors cannot be read: {error}")))?;
    let mut data: Vec<(usize, Vec<f32>)> = answer
        .data
        .into_iter()
        .enumerate()
        .map(|(place, Embedding { index, embedding })| (index.unwrap_or(place), embedding))
        .collect();
    data.sort_by_key(|(index, _)| *index);
    let whole = data
        .iter()
        .enumerate()
        .all(|(place, (index, vector))| place == *index && !vector.is_empty());
    if data.len() != texts || !whole {
        return Err(about.nonsense(format!("it answers with {} vectors for {texts} texts", data.len())));
    }
    Ok(engine::Embeddings {
        vectors: data.into_iter().map(|(_, vector)| vector).collect(),
        tokens: answer.usage.and_then(|usage| usage.prompt_tokens).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_vector_for_each_text() {
        let about = About {
            model: "m",
            replica: "r",
            secret: None,
        };
        let read = |answer: Value, texts| read(about, answer.to_string().as_bytes(), texts);
        let second = json!({"index": 1, "embedding": [2.0]});
        let first = json!({"index": 0, "embedding": [1.0, -1e-3]});
        let made = read(json!({"data": [second, first], "usage": {"prompt_tokens": 7}}), 2).unwrap();
        assert_eq!(made.vectors, [vec![1.0, -1e-3], vec![2.0]]);
        assert_eq!(made.tokens, 7);
        // Some leave out what is plain.
        assert_eq!(read(json!({"data": [{"embedding": [1.0]}]}), 1).unwrap().tokens, 0);
        for (answer, texts) in [
            (json!({"data": [first]}), 2),
            (json!({"data": [first, first]}), 2),
            (json!({"data": [second]}), 1),
            (json!({"data": [{"index": 0, "embedding": []}]}), 1),
            (json!({"data": [{"index": 0, "embedding": "AAAA"}]}), 1),
            (json!({"error": "no"}), 1),
            (json!([]), 1),
        ] {
            let fault = read(answer.clone(), texts).unwrap_err();
            assert_eq!(fault.outcome, "invalid", "{answer}");
        }
    }
}
