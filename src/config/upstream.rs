//! `upstream`: servers that answer in the place of a model's file.

use std::time::Duration;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::DeValue;
use url::Url;

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::kind::{Choice, Kind, Maybe, Report, Text, Truth, whole};
use super::reader::Table;
use super::section::{Entry, Fallback, Key, Section, default_text, doc_text, entry, first, key_name, require, section};
use super::setting::Setting;
use super::types::{Environment, ModelSource, UpstreamKind, UpstreamReasoning};
use super::value::{self, Fault};

use Fallback::{Required, Value};

section! {
    /// A server that answers in the place of a file ([upstream.md](upstream.md)). Several (`upstream = [{ ... }, { ... }]`) are replicas: the least busy
    /// one is asked.
    "[[model.upstream]]" UpstreamConfig, PartialUpstream {
        /// where its API begins, such as `"http://gpu-box:8000/v1"`
        base_url: Url = Required("add base_url = \"http://.../v1\""), Text { parse: base_url, show: ToString::to_string };
        /// what it speaks
        kind: UpstreamKind = Value(UpstreamKind::OpenAi), Choice {
            words: [("openai", UpstreamKind::OpenAi)],
            hint: Some("vLLM, SGLang, TensorRT-LLM, llama-server and hearth itself speak \"openai\""),
        };
        /// what it calls the model
        model: Option<String> = Value(None), Maybe(NAME_THERE, "the name here");
        /// the environment variable that has its API key
        api_key_env: Option<String> = Value(None), Maybe(Text { parse: variable, show: String::clone }, "no key");
        /// requests that it gets, compared with the other replicas
        weight: u32 = Value(1), whole(1..=1000);
        /// requests that it computes at the same time at most; more are refused with 429
        max_requests: u32 = Value(256), whole(1..=100_000);
        /// where its answers have a model's thoughts: `"auto"` takes the fields `reasoning_content` and `reasoning`, else what is between
        /// `<think>` tags at the beginning; `"open"` is for models whose prompt already has `<think>`; `"fields"` takes only the fields
        reasoning: UpstreamReasoning = Value(UpstreamReasoning::Auto), Choice {
            words: [
                ("auto", UpstreamReasoning::Auto),
                ("open", UpstreamReasoning::Open),
                ("fields", UpstreamReasoning::Fields),
            ],
            hint: None,
        };
        /// also send fields that OpenAI does not have (`top_k`, `min_p`, `chat_template_kwargs`, ...); some servers refuse them
        extensions: bool = Value(true), Truth;
        /// time for a connection
        connect_timeout: Duration = Value(Duration::from_secs(5)), DURATION;
        /// time until an answer begins, waiting and prefill included
        first_byte_timeout: Duration = Value(Duration::from_secs(300)), DURATION;
        /// longest pause in an answer
        idle_timeout: Duration = Value(Duration::from_secs(60)), DURATION;
        /// time for a whole answer
        total_timeout: Duration = Value(Duration::from_secs(3600)), DURATION;
        /// how often a request is tried again, where the server refuses the connection, fails or is overloaded before an answer begins
        retries: u32 = Value(2), whole(0..=10);
        /// failures in a row after which it is left alone for a while (the circuit breaker opens)
        breaker_failures: u32 = Value(5), whole(1..=1000);
        /// how long; twice as long after each trial that fails, a minute or so at most
        breaker_pause: Duration = Value(Duration::from_secs(2)), DURATION;
    }
}

const DURATION: Text<Duration> = Text {
    parse: value::duration,
    show: |span| value::duration_text(*span),
};

const NAME_THERE: Text<String> = Text {
    parse: |text| match text.trim() {
        "" => Err(Fault {
            message: "must not be empty".to_owned(),
            hint: Some("`curl BASE_URL/models` tells the names".to_owned()),
        }),
        _ => Ok(text.to_owned()),
    },
    show: String::clone,
};

/// The replicas of a model.
#[derive(Debug, Clone, Default)]
pub(super) struct PartialUpstreams(pub Vec<PartialUpstream>);

impl PartialUpstreams {
    pub fn build(&self) -> Option<Vec<UpstreamConfig>> {
        self.0.iter().map(PartialUpstream::build).collect()
    }
}

/// Where a model's file is; nothing to be shown where there is none.
pub(super) struct Source;

impl Source {
    const TEXT: Text<ModelSource> = Text {
        parse: value::source,
        show: value::source_text,
    };
}

impl Kind for Source {
    type Value = ModelSource;

    fn read(&self, key: &str, value: &Spanned<DeValue<'_>>, report: Report<'_>) -> Option<Setting<ModelSource>> {
        Self::TEXT.read(key, value, report)
    }

    fn parse(&self, text: &str) -> Result<ModelSource, Fault> {
        Self::TEXT.parse(text)
    }

    fn show(&self, value: &ModelSource) -> Option<Json> {
        match value {
            ModelSource::Upstream => None,
            source => Self::TEXT.show(source),
        }
    }

    fn absent(&self) -> &'static str {
        "none: others answer"
    }

    fn schema(&self) -> Json {
        Self::TEXT.schema()
    }
}

impl PartialUpstreams {
    /// What the file says of the servers of a model, and where; `None` if nothing.
    pub fn read(table: &mut Table<'_, '_>, problems: &Problems) -> Option<(Self, Origin)> {
        const KEY: &str = "upstream";
        let tables = table.one_or_more(KEY, "[[model.upstream]]")?;
        let origin = table.origin_of(KEY)?;
        if tables.is_empty() {
            let hint = "write upstream = { base_url = \"http://.../v1\" }";
            problems.push(Diagnostic::error(&origin, "`upstream` is an empty list").hint(hint.to_owned()));
        }
        if let Some(path) = table.origin_of("path") {
            let message = "a model has `path` or `upstream`, not both";
            let hint = "of two models one can stand in for the other: see `fallback`";
            problems.push(Diagnostic::error(&path, message).hint(hint.to_owned()));
        }
        let read = |mut table: Table<'_, '_>| {
            let mut upstream = PartialUpstream::default();
            upstream.read(&mut table);
            table.finish();
            upstream
        };
        Some((Self(tables.into_iter().map(read).collect()), origin))
    }

    /// Warns of keys that are not there.
    pub fn check(&self, env: &Environment, problems: &Problems) {
        for upstream in &self.0 {
            let Some(Some(name)) = upstream.api_key_env.get() else {
                continue;
            };
            if env.get(name).is_none_or(|key| key.trim().is_empty()) {
                let message = format!("`api_key_env` is `{name}`, but there is no such environment variable");
                let hint = "requests go out without a key; set the variable where hearth is started";
                problems.push(Diagnostic::warning(&upstream.api_key_env.origin, message).hint(hint.to_owned()));
            }
        }
    }
}

/// Where an API begins: without a slash at the end.
fn base_url(text: &str) -> Result<Url, Fault> {
    let fault = |message: String, hint: &str| {
        Err(Fault {
            message,
            hint: Some(hint.to_owned()),
        })
    };
    let example = "\"http://gpu-box:8000/v1\": the address without /chat/completions";
    let Ok(url) = Url::parse(text.trim()) else {
        return fault("must be a URL that begins with http:// or https://".to_owned(), example);
    };
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return fault(
            format!("must begin with http:// or https://, but begins with {}:", url.scheme()),
            example,
        );
    }
    // Not repeated: it may be a secret.
    if !url.username().is_empty() || url.password().is_some() {
        return fault(
            "must not have a user or a password".to_owned(),
            "keys are in environment variables: `api_key_env`",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return fault("must not have a `?` or a `#`".to_owned(), example);
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path.ends_with("/completions") {
        return fault(format!("must be where the API begins, but its path is {path}"), example);
    }
    let mut url = url;
    url.set_path(&path);
    Ok(url)
}

/// The name of an environment variable.
fn variable(text: &str) -> Result<String, Fault> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !text.is_empty()
        && text.len() <= 128
        && text.chars().all(letter)
        && !text.starts_with(|c: char| c.is_ascii_digit())
    {
        return Ok(text.to_owned());
    }
    // Not repeated: people write the key itself.
    Err(Fault {
        message: "must be the name of an environment variable".to_owned(),
        hint: Some("such as \"VENICE_API_KEY\"; the key itself is not written into the file".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_begin_with_http() {
        for (text, expect) in [
            ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
            ("https://api.example/v1/", "https://api.example/v1"),
            ("http://gpu-box", "http://gpu-box/"),
            ("http://[::1]:80/a/b", "http://[::1]/a/b"),
        ] {
            assert_eq!(base_url(text).unwrap().as_str(), expect);
        }
        for text in [
            "",
            "gpu-box:8000",
            "ftp://gpu-box/v1",
            "file:///etc/passwd",
            "http://user:secret@gpu-box/v1",
            "http://gpu-box/v1?key=secret",
            "http://gpu-box/v1/chat/completions",
        ] {
            let fault = base_url(text).unwrap_err();
            assert!(!fault.message.contains("secret"), "{fault:?}");
        }
    }

    #[test]
    fn keys_are_not_repeated() {
        assert!(variable("VENICE_API_KEY").is_ok());
        let fault = variable("sk-secret").unwrap_err();
        assert!(!format!("{fault:?}").contains("sk-secret"));
    }
}
