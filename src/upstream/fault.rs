//! What can go wrong with a server, what becomes of it here, and whether another try may help.

use std::time::Duration;

use serde_json::Value;

use crate::engine::EngineError;
use crate::generation::GenerationError;

/// A failure of one request to one server.
#[derive(Debug)]
pub(super) struct Fault {
    /// What the client is told if nothing else helps.
    pub(super) error: GenerationError,
    pub(super) again: Again,
    /// The circuit breaker counts it.
    pub(super) is_failure: bool,
    /// For metrics.
    pub(super) outcome: &'static str,
}

/// Whether the same request may succeed elsewhere or later, as long as nothing of the answer was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    No,
    /// On other replicas, but not on this one.
    Elsewhere,
    /// On any replica.
    Soon,
    /// On other replicas, on this one after a while.
    After(Duration),
}

/// Whom a fault is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// As clients call it.
    pub(super) model: &'a str,
    /// The server, without its key.
    pub(super) replica: &'a str,
    /// Must not be told.
    pub(super) secret: Option<&'a str>,
}

/// Bytes of a message that is passed on.
const MESSAGE: usize = 500;
/// Fields that a server may complain about.
const FIELDS: [&str; 19] = [
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "messages",
    "min_p",
    "n",
    "presence_penalty",
    "prompt",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "reasoning_effort",
];

impl About<'_> {
    fn upstream(&self, reason: impl AsRef<str>, retry_after: Option<Duration>) -> GenerationError {
        GenerationError::Engine(EngineError::Upstream {
            model: self.model.to_owned(),
            reason: format!("{}: {}", self.replica, self.clean(reason.as_ref())),
            retry_after,
        })
    }

    fn timeout(&self, reason: &str) -> GenerationError {
        GenerationError::Engine(EngineError::Timeout {
            model: self.model.to_owned(),
            reason: format!("{}: {reason}", self.replica),
        })
    }

    /// A text of the server that can be shown: short, on one line, without the key.
    fn clean(&self, text: &str) -> String {
        let text = match self.secret {
            Some(secret) if !secret.is_empty() => text.replace(secret, "[key]"),
            _ => text.to_owned(),
        };
        let mut short: String = String::new();
        for c in text.chars() {
            if short.len() >= MESSAGE {
                short.push('…');
                break;
            }
            short.push(if c.is_control() { ' ' } else { c });
        }
        short
    }

    /// The connection could not be made, or broke before anything came.
    pub(super) fn no_connection(&self, reason: &str) -> Fault {
        Fault {
            error: self.upstream(reason, None),
            again: Again::Soon,
            is_failure: true,
            outcome: "connect",
        }
    }

    /// Nothing came in time. Another try would take as long.
    pub(super) fn too_slow(&self, reason: &str) -> Fault {
        Fault {
            error: self.timeout(reason),
            again: Again::No,
            is_failure: true,
            outcome: "timeout",
        }
    }

    /// What came is no answer.
    pub(super) fn nonsense(&self, reason: impl AsRef<str>) -> Fault {
        Fault {
            error: self.upstream(reason, None),
            again: Again::Elsewhere,
            is_failure: true,
            outcome: "invalid",
        }
    }

    /// The answer broke off.
    pub(super) fn cut(&self, reason: impl AsRef<str>) -> Fault {
        Fault {
            error: self.upstream(reason, None),
            again: Again::Soon,
            is_failure: true,
            outcome: "cut",
        }
    }

    /// What a status other than 200 means.
    pub(super) fn status(&self, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Fault {
        let told = Told::of(body);
        let said = told
            .message
            .as_deref()
            .map_or_else(String::new, |message| format!(": {message}"));
        match status {
            429 => Fault {
                error: GenerationError::Engine(EngineError::Overloaded {
                    model: self.model.to_owned(),
                    reason: format!("{} answers 429{}", self.replica, self.clean(&said)),
                    retry_after: retry_after.unwrap_or(Duration::from_secs(1)),
                }),
                again: retry_after.map_or(Again::Soon, Again::After),
                is_failure: false,
                outcome: "overloaded",
            },
            408 | 504 => Fault {
                outcome: "server_error",
                again: Again::Soon,
                ..self.too_slow(&self.clean(&format!("it answers {status}{said}")))
            },
            503 if retry_after.is_some() => Fault {
                error: self.upstream(format!("it answers 503{said}"), retry_after),
                again: retry_after.map_or(Again::Soon, Again::After),
                is_failure: false,
                outcome: "server_error",
            },
            500.. => Fault {
                error: self.upstream(format!("it answers {status}{said}"), None),
                again: Again::Soon,
                is_failure: true,
                outcome: "server_error",
            },
            // Not passed on as they are: the client's own key and request are right. What the server says of the key stays here.
            401 | 403 => Fault {
                outcome: "refused",
                ..self.nonsense(format!(
                    "it refuses the API key that hearth sends ({status}); `api_key_env` names the variable that has it"
                ))
            },
            404 | 405 => Fault {
                outcome: "refused",
                ..self.nonsense(format!(
                    "it answers {status}{said}; `base_url` must be where its API begins, and `model` what it calls the model"
                ))
            },
            300..=399 => Fault {
                outcome: "refused",
                ..self.nonsense(format!(
                    "it answers {status}, a redirect, which is not followed: the API key would go elsewhere; correct `base_url`"
                ))
            },
            400 | 409 | 413 | 415 | 422 => Fault {
                error: self.invalid(told),
                again: Again::No,
                is_failure: false,
                outcome: "client_error",
            },
            _ => Fault {
                outcome: "refused",
                ..self.nonsense(format!("it answers {status}{said}"))
            },
        }
    }

    /// An error that stands in the stream.
    pub(super) fn told(&self, error: &Value) -> Fault {
        let status = match (error["code"].as_u64(), error["type"].as_str().unwrap_or_default()) {
            (Some(status), _) => u16::try_from(status).unwrap_or(500),
            (None, "invalid_request_error" | "BadRequestError") => 400,
            (None, "rate_limit_error") => 429,
            (None, "unavailable_error") => 503,
            _ => 500,
        };
        // A success cannot be an error.
        let status = if (300..600).contains(&status) { status } else { 500 };
        let body = serde_json::json!({"error": error}).to_string();
        self.status(status, None, body.as_bytes())
    }

    fn invalid(&self, told: Told) -> GenerationError {
        if let Some((prompt_tokens, context)) = told.context {
            return GenerationError::Engine(EngineError::ContextExceeded {
                model: self.model.to_owned(),
                prompt_tokens,
                context,
            });
        }
        let param = told.param.as_deref().unwrap_or_default();
        let field = FIELDS
            .into_iter()
            .find(|field| param == *field || param.starts_with(&format!("{field}[")));
        let message = told.message.unwrap_or_else(|| "no reason is given".to_owned());
        GenerationError::InvalidRequest {
            field: field.unwrap_or("messages"),
            message: format!(
                "the server of model `{}` refuses the request: {}",
                self.model,
                self.clean(&message)
            ),
        }
    }
}

/// What the body of an error says, in whichever form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    message: Option<String>,
    param: Option<String>,
    /// Tokens of a prompt that is too long, and those that fit.
    context: Option<(usize, u32)>,
}

impl Told {
    fn of(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let Ok(body) = serde_json::from_str::<Value>(&text) else {
            // A page for people would only be noise.
            let is_page = text.trim_start().starts_with('<');
            return Self {
                message: (!is_page && !text.trim().is_empty()).then(|| text.trim().to_owned()),
                ..Self::default()
            };
        };
        let error = if body["error"].is_null() { &body } else { &body["error"] };
        let message = [
            error,
            &error["message"],
            &error["detail"],
            &body["message"],
            &body["detail"],
        ];
        let message = message.into_iter().find_map(Value::as_str).map(str::to_owned);
        let number = |field: &str| error[field].as_u64();
        let context = match (number("n_prompt_tokens"), number("n_ctx")) {
            (Some(prompt), Some(context)) => Some((prompt, context)),
            _ => message.as_deref().and_then(context_of),
        };
        Self {
            param: error["param"].as_str().map(str::to_owned),
            context: context
                .and_then(|(prompt, context)| Some((usize::try_from(prompt).ok()?, u32::try_from(context).ok()?))),
            message,
        }
    }
}

/// The tokens of a prompt and the context, in the words of vLLM, SGLang and OpenAI.
fn context_of(message: &str) -> Option<(u64, u64)> {
    const LENGTH: &str = "context length";
    let lower = message.to_lowercase();
    let at = lower.find(LENGTH)?;
    let numbers = |text: &str| -> Vec<u64> {
        let words = text
            .split(|c: char| !c.is_ascii_digit())
            .filter(|word| !word.is_empty());
        words.filter_map(|word| word.parse().ok()).collect()
    };
    // "maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 in the messages, ..."
    // "The input (9000 tokens) is longer than the model's context length (4096 tokens)."
    let (before, after) = (numbers(&lower[..at]), numbers(&lower[at..]));
    match (before.as_slice(), after.as_slice()) {
        ([.., prompt], [context]) => Some((*prompt, *context)),
        (_, [context, prompt]) => Some((*prompt, *context)),
        // The number behind the parenthesis is that of the messages alone.
        (_, [context, _, prompt, ..]) if lower.contains("in the messages") => Some((*prompt, *context)),
        (_, [context, prompt, ..]) => Some((*prompt, *context)),
        _ => None,
    }
    .filter(|(prompt, context)| *context > 0 && *prompt > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ABOUT: About<'static> = About {
        model: "m",
        replica: "box:8000",
        secret: Some("sk-secret"),
    };

    #[test]
    fn statuses_become_errors_that_can_be_acted_upon() {
        let body = br#"{"error": {"message": "no: sk-secret is\nwrong", "type": "x", "param": null, "code": null}}"#;
        let after = Some(Duration::from_secs(3));
        for (status, retry_after, again, is_failure, says) in [
            (400, None, Again::No, false, "refuses the request: no: [key] is wrong"),
            (401, None, Again::Elsewhere, true, "refuses the API key"),
            (404, None, Again::Elsewhere, true, "404: no: [key] is wrong"),
            (302, None, Again::Elsewhere, true, "redirect"),
            (429, None, Again::Soon, false, "overloaded"),
            (429, after, Again::After(Duration::from_secs(3)), false, "429"),
            (500, None, Again::Soon, true, "500"),
            (503, after, Again::After(Duration::from_secs(3)), false, "503"),
            (504, None, Again::Soon, true, "too long"),
        ] {
            let fault = ABOUT.status(status, retry_after, body);
            let text = fault.error.to_string();
            assert!(text.contains(says), "{status}: {text}");
            assert!(!format!("{fault:?}").contains("sk-secret"), "{fault:?}");
            assert_eq!((fault.again, fault.is_failure), (again, is_failure), "{status}");
        }
    }

    #[test]
    fn bodies_have_many_forms() {
        for (body, expect) in [
            (json!({"error": {"message": "a", "param": "tools"}}), Some("a")),
            (json!({"error": "a"}), Some("a")),
            (json!({"object": "error", "message": "a", "code": 400}), Some("a")),
            (json!({"detail": "a"}), Some("a")),
            (json!([1]), None),
        ] {
            assert_eq!(
                Told::of(body.to_string().as_bytes()).message.as_deref(),
                expect,
                "{body}"
            );
        }
        assert_eq!(Told::of(b"<html>Bad Gateway</html>").message, None);
        assert_eq!(Told::of(b"upstream died").message.as_deref(), Some("upstream died"));
        let long = "x".repeat(10_000);
        assert!(ABOUT.status(500, None, long.as_bytes()).error.to_string().len() < 700);
    }

    #[test]
    fn prompts_that_are_too_long_are_told_as_ours_are() {
        for message in [
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 in the messages, 100 in the completion).",
            "This model's maximum context length is 4096 tokens. However, your request has 4900 input tokens. Please reduce the length.",
            "The input (4900 tokens) is longer than the model's context length (4096 tokens).",
        ] {
            let body = json!({"error": {"message": message, "code": "context_length_exceeded"}}).to_string();
            let fault = ABOUT.status(400, None, body.as_bytes());
            let GenerationError::Engine(EngineError::ContextExceeded {
                prompt_tokens, context, ..
            }) = fault.error
            else {
                panic!("{message}: {fault:?}");
            };
            assert_eq!((prompt_tokens, context), (4900, 4096), "{message}");
        }
        let ours = json!({"error": {"message": "too long", "n_prompt_tokens": 7, "n_ctx": 5}}).to_string();
        assert_eq!(Told::of(ours.as_bytes()).context, Some((7, 5)));
    }
}
