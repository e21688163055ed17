//! `POST /infill`: completes code between what is before and what is behind.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Deserialize;

use super::completion::answer;
use super::error::{LlamaError, LlamaErrorBody};
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::api::state::State;
use crate::engine::{EngineError, InfillTokens, Token, TokenEngine};
use crate::generation::{Segment, TextPrompt};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/infill", post().to(infill));
}

const FIELDS: &[&str] = &["input_prefix", "input_suffix", "input_extra", "prompt"];

#[derive(Debug, Deserialize)]
struct Request {
    input_prefix: String,
    input_suffix: String,
    #[serde(default)]
    input_extra: Vec<Chunk>,
    /// What the answer begins with.
    #[serde(default)]
    prompt: Option<String>,
}

/// A piece of another file.
#[derive(Debug, Deserialize)]
struct Chunk {
    text: String,
    #[serde(default)]
    filename: Option<String>,
}

/// Completes code between what is before and what is behind.
#[utoipa::path(
    post,
    path = "/infill",
    request_body(
        content = Value,
        example = json!({"input_prefix": "def add(a, b):\n", "input_suffix": "\nprint(add(1, 2))", "n_predict": 16})
    ),
    responses(
        (
            status = 200,
            description = "The text, as `/completion` tells it.",
            content((Value = "application/json"), (String = "text/event-stream"))
        ),
        (status = 501, description = "The model has not learnt to fill in.", body = LlamaErrorBody<'static>)
    )
)]
pub(super) async fn infill(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let target = state.open(&mut body).await?;
    let model = &target.model;
    let engine = &*model.engine;
    let Some(marks) = engine.infill_tokens()? else {
        let message = format!(
            "model `{}` cannot fill in: its vocabulary has no tokens for it",
            model.name()
        );
        return Err(LlamaError::not_supported(message));
    };
    let request: Request = body.take_all(FIELDS).read()?;
    let chunks = request.input_extra.len();
    if chunks > limits::INFILL_CHUNKS {
        let message = format!(
            "`input_extra` has {chunks} entries, but at most {} are taken",
            limits::INFILL_CHUNKS
        );
        return Err(ApiError::field("input_extra", message).into());
    }
    let parts = Parts::read(engine, &marks, request).await?;
    let prompt = parts.prompt(&marks, Shares::of(model.info().context));
    answer(&target, body, vec![TextPrompt(vec![Segment::Tokens(prompt)])]).await
}

/// What the prompt is made of, in tokens.
#[derive(Debug)]
struct Parts {
    extra: Vec<Token>,
    before: Vec<Token>,
    /// The beginning of the answer.
    begun: Vec<Token>,
    behind: Vec<Token>,
}

/// Tokens that each part may have at most. The nearest to the gap are kept.
#[derive(Debug, Clone, Copy)]
struct Shares {
    extra: usize,
    before: usize,
    behind: usize,
}

impl Shares {
    /// As llama-server deals them out: a batch for the two sides, three quarters of it before the gap; of the rest, half is for
    /// other files.
    fn of(context: u32) -> Self {
        const BATCH: usize = 2048;
        let context = usize::try_from(context).unwrap_or(usize::MAX);
        let sides = BATCH.min(context / 2);
        Self {
            extra: (context - sides) / 2,
            before: sides / 4 * 3,
            behind: sides / 4,
        }
    }
}

impl Parts {
    async fn read(engine: &dyn TokenEngine, marks: &InfillTokens, request: Request) -> Result<Self, EngineError> {
        // Control tokens in a file are text.
        let tokens = |text: String| engine.tokenize(text, false, false);
        let mut extra = Vec::new();
        if let Some(repository) = marks.repository {
            extra.push(repository);
            extra.extend(tokens("project\n".into()).await?);
        }
        let separate = async |extra: &mut Vec<Token>, name: &str| {
            match marks.separator {
                Some(separator) => {
                    extra.push(separator);
                    extra.extend(tokens(format!("{name}\n")).await?);
                }
                None => extra.extend(tokens("\n\n".into()).await?),
            }
            Ok::<(), EngineError>(())
        };
        for chunk in request.input_extra {
            separate(&mut extra, chunk.filename.as_deref().unwrap_or("tmp")).await?;
            extra.extend(tokens(chunk.text).await?);
        }
        if marks.separator.is_some() {
            separate(&mut extra, "filename").await?;
        }
        Ok(Self {
            extra,
            before: tokens(request.input_prefix).await?,
            begun: engine.tokenize(request.prompt.unwrap_or_default(), false, true).await?,
            behind: tokens(request.input_suffix).await?,
        })
    }

    fn prompt(self, marks: &InfillTokens, shares: Shares) -> Vec<Token> {
        let last = |tokens: &[Token], most: usize| tokens[tokens.len().saturating_sub(most)..].to_vec();
        let behind = shares
            .behind
            .saturating_sub(2 + self.begun.len())
            .min(self.behind.len());
        [
            last(&self.extra, shares.extra),
            marks.bos.into_iter().collect(),
            vec![marks.prefix],
            last(&self.before, shares.before),
            self.begun,
            vec![marks.suffix],
            self.behind[..behind].to_vec(),
            vec![marks.middle],
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_the_gap_is_kept() {
        let marks = InfillTokens {
            prefix: 100,
            suffix: 101,
            middle: 102,
            repository: None,
            separator: None,
            bos: Some(99),
        };
        let parts = || Parts {
            extra: vec![1, 2, 3],
            before: vec![4, 5, 6],
            begun: vec![7],
            behind: vec![8, 9],
        };
        let shares = |extra, before, behind| Shares { extra, before, behind };
        assert_eq!(
            parts().prompt(&marks, shares(9, 9, 9)),
            [1, 2, 3, 99, 100, 4, 5, 6, 7, 101, 8, 9, 102]
        );
        assert_eq!(
            parts().prompt(&marks, shares(1, 2, 4)),
            [3, 99, 100, 5, 6, 7, 101, 8, 102]
        );
        assert_eq!(parts().prompt(&marks, shares(0, 0, 0)), [99, 100, 7, 101, 102]);
        for context in [1, 100, 4096, 1 << 20] {
            let shares = Shares::of(context);
            assert!(shares.extra + shares.before + shares.behind <= context as usize);
        }
    }
}
