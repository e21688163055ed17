//! The client of one server: what the benchmark asks of an OpenAI-compatible API.

use std::error::Error;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::{Value, json};

use super::events::{Events, Usage, excerpt};
use crate::cli::benchmark::streams::{Arrivals, Stream};
use crate::cli::remote;

/// A server on the same network answers a connection within this time.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest time for small requests, such as the list of models.
const SMALL: Duration = Duration::from_secs(30);
/// Between two attempts while a server loads its model.
const RETRY: Duration = Duration::from_millis(250);
/// The path of chats.
const CHAT: &str = "v1/chat/completions";
/// Bodies that are read as a whole: lists of models and of tokens.
const MAX_BODY: usize = 64 << 20;

/// Which of the two endpoints of OpenAI's API is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Endpoint {
    /// /v1/completions: the prompt as it is.
    Completions,
    /// /v1/chat/completions: the prompt as a user's message, through the server's chat template.
    Chat,
}

/// A server and the model that is measured on it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    client: Client,
    /// Without `/v1`.
    root: Url,
    model: String,
    endpoint: Endpoint,
    /// For a whole request.
    timeout: Duration,
}

/// A finished request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) stream: Stream,
    /// The server's own counts; without them `stream` counts the events that brought text.
    pub(super) usage: Option<Usage>,
    /// The answer without reasoning and calls, as it goes into the next turn of a chat.
    pub(super) content: String,
}

/// What a server says about itself.
#[derive(Debug, Default)]
pub(super) struct About {
    /// Its `Server` header.
    pub(super) software: Option<String>,
    /// Models, in its order.
    pub(super) models: Vec<String>,
}

/// The address of a server, without `/v1` and the like.
pub(super) fn root(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("is no URL: {error}; write http://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme is {}; write http://HOST:PORT", url.scheme()));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

impl Server {
    /// Connects to a server, with a key if it wants one, and asks which models it has. Without a `model` the first one is taken.
    pub(super) async fn connect(
        root: Url,
        key: Option<HeaderValue>,
        model: Option<String>,
        endpoint: Endpoint,
        timeout: Duration,
    ) -> anyhow::Result<(Self, About)> {
        let client = remote::client(&root, key)
            .connect_timeout(CONNECT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Each request opens a connection. A kept one may be closed by the server just when it is used again.
            .pool_max_idle_per_host(0)
            .build()?;
        let mut server = Self {
            client,
            root,
            model: model.clone().unwrap_or_default(),
            endpoint,
            timeout,
        };
        let response = server.send(Method::GET, "v1/models", None, SMALL).await?;
        let software = response.headers().get("server").and_then(|value| value.to_str().ok());
        let software = software.map(excerpt);
        let list = body(response).await;
        let models: Vec<String> = match &list {
            Ok(list) => list["data"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|model| model["id"].as_str().map(str::to_owned))
                .collect(),
            Err(_) => Vec::new(),
        };
        if model.is_none() {
            list?;
            server.model = models
                .first()
                .cloned()
                .context("its /v1/models lists no model; --model names one")?;
        }
        Ok((server, About { software, models }))
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Tokens of a text by itself, by the server's `/tokenize` (llama-server, hearth, vLLM); `None` if it has none.
    pub(super) async fn tokenize(&self, text: &str) -> anyhow::Result<Option<u32>> {
        // llama-server and hearth read `content` and `add_special`, vLLM `prompt` and `add_special_tokens`.
        let request = json!({
            "model": self.model, "content": text, "prompt": text, "add_special": true, "add_special_tokens": true,
        });
        let response = self.send(Method::POST, "tokenize", Some(&request), SMALL).await?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let Ok(answer) = body(response).await else {
            return Ok(None);
        };
        let count = answer["tokens"].as_array().map(|tokens| tokens.len() as u64);
        let count = count.or_else(|| answer["count"].as_u64());
        Ok(count.and_then(|count| u32::try_from(count).ok()))
    }

    /// A first request of few tokens: waits while the server loads the model, and shows what it refuses.
    pub(super) async fn probe(&self, text: &str) -> anyhow::Result<Reply> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let response = self.request(text, 1).await?;
            if response.status() == StatusCode::SERVICE_UNAVAILABLE && Instant::now() < deadline {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            return self.read(response, Instant::now(), || {}).await;
        }
    }

    /// Sends a prompt and reads the stream of exactly `tokens` tokens, if the server can ignore the end token.
    pub(super) async fn complete(&self, text: &str, tokens: u32) -> anyhow::Result<Reply> {
        self.complete_and(text, tokens, || {}).await
    }

    /// The same; `arrived` is called whenever text has arrived.
    pub(super) async fn complete_and(&self, text: &str, tokens: u32, arrived: impl Fn()) -> anyhow::Result<Reply> {
        let submitted = Instant::now();
        let response = self.request(text, tokens).await?;
        self.read(response, submitted, arrived).await
    }

    /// Sends a chat with tools (null for none), as a client of OpenAI's API does: the server may keep the prompt, and the answer
    /// ends where the model ends it, after `tokens` tokens at the latest.
    pub(super) async fn chat(&self, messages: &[Value], tools: &Value, tokens: u32) -> anyhow::Result<Reply> {
        let submitted = Instant::now();
        let mut request = json!({
            "model": self.model, "messages": messages, "max_tokens": tokens, "temperature": 0,
            "stream": true, "stream_options": {"include_usage": true},
        });
        if !tools.is_null() {
            request["tools"] = tools.clone();
        }
        let response = self.send(Method::POST, CHAT, Some(&request), self.timeout).await?;
        self.read(response, submitted, || {}).await
    }

    async fn request(&self, text: &str, tokens: u32) -> anyhow::Result<Response> {
        let mut request = json!({
            "model": self.model, "max_tokens": tokens, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true},
            // Not of OpenAI's API: llama-server, hearth and vLLM know the first, llama-server and hearth the second.
            "ignore_eos": true, "cache_prompt": false,
        });
        let path = match self.endpoint {
            Endpoint::Completions => {
                request["prompt"] = text.into();
                "v1/completions"
            }
            Endpoint::Chat => {
                request["messages"] = json!([{"role": "user", "content": text}]);
                CHAT
            }
        };
        self.send(Method::POST, path, Some(&request), self.timeout).await
    }

    async fn read(&self, mut response: Response, submitted: Instant, arrived: impl Fn()) -> anyhow::Result<Reply> {
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let mut events = Events::default();
        let mut arrivals = Arrivals::default();
        let (mut texts, mut usage, mut decode_ms) = (0, None, None);
        let (mut end, mut done) = (None, false);
        let (mut content, mut drafts) = (String::new(), None);
        while let Some(bytes) = response
            .chunk()
            .await
            .map_err(|error| self.failed(error, self.timeout))?
        {
            let now = Instant::now();
            let chunks = events.push(&bytes)?;
            let new = chunks.iter().filter(|chunk| chunk.text).count();
            if new > 0 {
                arrivals.add(now, new);
                texts += u32::try_from(new)?;
                arrived();
            }
            for chunk in chunks {
                content.push_str(&chunk.content);
                drafts = chunk.drafts.or(drafts);
                usage = chunk.usage.or(usage);
                decode_ms = chunk.decode_ms.or(decode_ms);
                done |= chunk.done;
                if chunk.finish_reason.is_some() {
                    end = Some(now);
                }
            }
            if done {
                break;
            }
        }
        if !done && end.is_none() {
            bail!("the server closed the stream before its end");
        }
        let end = end.unwrap_or_else(Instant::now);
        let completion_tokens = usage.map_or(texts, |usage| usage.completion_tokens);
        let first = first_token(&arrivals, end, decode_ms.filter(|_| texts < completion_tokens)).max(submitted);
        Ok(Reply {
            stream: Stream {
                submitted,
                prompt_tokens: usage.map_or(0, |usage| usage.prompt_tokens),
                completion_tokens,
                first_token: first - submitted,
                decode: end - first,
                drafts: drafts.unwrap_or_default(),
                arrivals,
            },
            usage,
            content,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> anyhow::Result<Response> {
        let timeout = timeout.min(self.timeout);
        let mut url = self.root.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        let mut request = self.client.request(method, url).timeout(timeout);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.map_err(|error| self.failed(error, timeout))
    }

    /// What a failed connection means.
    fn failed(&self, error: reqwest::Error, timeout: Duration) -> anyhow::Error {
        let mut cause: &dyn Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        if error.is_connect() && cause.to_string().contains("certificate") {
            return anyhow!("cannot connect: {cause}; {}", remote::UNTRUSTED);
        }
        if error.is_connect() {
            return anyhow!("cannot connect: {cause}; is a server running at {}?", self.root);
        }
        if error.is_timeout() {
            return anyhow!("no complete answer within {timeout:?}; --timeout allows more");
        }
        anyhow!("the connection failed: {cause}")
    }
}

/// When the first token arrived. Tokens that print nothing (control tokens, parts of a character) do not arrive; if there
/// were such, `decode_ms`, the server's own time from its first token to its last, shows whether the first was among them.
fn first_token(arrivals: &Arrivals, end: Instant, decode_ms: Option<f64>) -> Instant {
    let seen = arrivals.first().unwrap_or(end);
    let by_server = decode_ms
        .and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok())
        .and_then(|decode| end.checked_sub(decode));
    by_server.map_or(seen, |first| seen.min(first))
}

/// The JSON of a response that succeeded.
async fn body(mut response: Response) -> anyhow::Result<Value> {
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let text = text(&mut response).await?;
    serde_json::from_slice(&text).with_context(|| {
        let path = response.url().path().to_owned();
        format!("{path} is not JSON: {}", excerpt(&String::from_utf8_lossy(&text)))
    })
}

/// Why a server refused a request, in its own words where it has any.
async fn refusal(mut response: Response) -> anyhow::Error {
    let status = response.status();
    let text = text(&mut response).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = [
        &json["error"]["message"],
        &json["error"],
        &json["message"],
        &json["detail"],
    ]
    .into_iter()
    .find_map(Value::as_str)
    .unwrap_or(&text);
    let url = response.url();
    let hint = match status {
        StatusCode::NOT_FOUND => {
            "\n  hint: --url is the address before /v1 of an OpenAI-compatible server; --model names one of its models"
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "\n  hint: servers that need a key cannot be measured yet",
        _ => "",
    };
    anyhow!("{url} answered {status}: {}{hint}", excerpt(message))
}

/// The body of a response, if it is not too long.
async fn text(response: &mut Response) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        text.extend_from_slice(&bytes);
        if text.len() > MAX_BODY {
            bail!("the response is longer than {MAX_BODY} bytes");
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_v1_are_the_same() {
        for text in [
            "http://localhost:8080",
            "http://localhost:8080/",
            "http://localhost:8080/v1",
            "http://localhost:8080/v1/",
        ] {
            assert_eq!(root(text).unwrap().as_str(), "http://localhost:8080/");
        }
        assert_eq!(root("http://host/llm/v1").unwrap().as_str(), "http://host/llm");
        assert_eq!(root("https://host/v1").unwrap().as_str(), "https://host/");
        assert!(root("ftp://host").unwrap_err().contains("scheme"));
        assert!(root("localhost:8080").unwrap_err().contains("http://HOST:PORT"));
    }

    #[test]
    fn tokens_without_text_are_known_from_the_servers_clock() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut arrivals = Arrivals::default();
        arrivals.add(at(40), 1);
        assert_eq!(first_token(&arrivals, at(100), None), at(40));
        // The server decoded for 90 ms, but the first text came 60 ms before the end.
        assert_eq!(first_token(&arrivals, at(100), Some(90.0)), at(10));
        assert_eq!(first_token(&arrivals, at(100), Some(50.0)), at(40));
        assert_eq!(first_token(&Arrivals::default(), at(100), None), at(100));
        assert_eq!(first_token(&arrivals, at(100), Some(f64::NAN)), at(40));
    }
}
