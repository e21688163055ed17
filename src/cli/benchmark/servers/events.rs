//! The server-sent events of a streamed completion.

use anyhow::bail;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::benchmark::streams::Drafts;

/// A longer line is no event of a completion.
const MAX_LINE: usize = 4 << 20;

/// One event of a streamed completion, as far as the benchmark needs it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Chunk {
    /// Whether it brings new text.
    pub(super) text: bool,
    /// The new text of a chat's answer, without reasoning and calls.
    pub(super) content: String,
    /// `finish_reason`, in the last event with a choice.
    pub(super) finish_reason: Option<String>,
    pub(super) usage: Option<Usage>,
    /// By the server's clock, from its first token to its last (llama-server and hearth tell it).
    pub(super) decode_ms: Option<f64>,
    /// Of the whole answer (llama-server and hearth tell them).
    pub(super) drafts: Option<Drafts>,
    /// `data: [DONE]`.
    pub(super) done: bool,
}

/// The server's own counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    #[serde(default)]
    pub(super) completion_tokens: u32,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

impl Usage {
    /// Prompt tokens that came from a prompt cache.
    pub(super) fn cached_tokens(self) -> u32 {
        let details = self.prompt_tokens_details;
        details.and_then(|details| details.cached_tokens).unwrap_or(0)
    }
}

/// An event as the servers write it: `/v1/completions` has `text`, chats have `delta`.
#[derive(Debug, Deserialize)]
struct Wire {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Timings {
    predicted_ms: Option<f64>,
    draft_n: Option<u64>,
    draft_n_accepted: Option<u64>,
}

impl Choice {
    fn has_text(&self) -> bool {
        let delta = self.delta.as_ref();
        let in_delta = |text: fn(&Delta) -> Option<&String>| delta.and_then(text).is_some_and(|text| !text.is_empty());
        self.text.as_ref().is_some_and(|text| !text.is_empty())
            || in_delta(|delta| delta.content.as_ref())
            || in_delta(|delta| delta.reasoning_content.as_ref())
            || in_delta(|delta| delta.reasoning.as_ref())
            || delta.is_some_and(|delta| delta.tool_calls.as_ref().is_some_and(|calls| !calls.is_null()))
    }
}

impl Chunk {
    fn read(data: &str) -> anyhow::Result<Self> {
        if data == "[DONE]" {
            return Ok(Self {
                done: true,
                ..Self::default()
            });
        }
        let Ok(wire) = serde_json::from_str::<Wire>(data) else {
            bail!("an event is not a completion: {}", excerpt(data));
        };
        if let Some(error) = wire.error {
            let message = error["message"].as_str().map(str::to_owned);
            let message = message.unwrap_or_else(|| error.to_string());
            bail!("the server gave up: {}", excerpt(&message));
        }
        let drafts = wire.timings.as_ref().and_then(|timings| {
            Some(Drafts {
                computed: timings.draft_n?,
                accepted: timings.draft_n_accepted?,
            })
        });
        let contents = wire
            .choices
            .iter()
            .filter_map(|choice| choice.delta.as_ref()?.content.as_deref());
        Ok(Self {
            text: wire.choices.iter().any(Choice::has_text),
            content: contents.collect(),
            drafts,
            finish_reason: wire.choices.into_iter().find_map(|choice| choice.finish_reason),
            usage: wire.usage,
            decode_ms: wire.timings.and_then(|timings| timings.predicted_ms),
            done: false,
        })
    }
}

/// Splits what the socket delivers into events. Each event of a completion is one `data:` line.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The beginning of a line whose end has not arrived.
    rest: Vec<u8>,
}

impl Events {
    /// The events that are complete with these bytes.
    ///
    /// # Errors
    /// Lines that are no events of a completion, and errors that the server reports as an event.
    pub(super) fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Chunk>> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            if self.rest.len() > MAX_LINE {
                bail!("a line of the stream is longer than {MAX_LINE} bytes");
            }
            return Ok(Vec::new());
        };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        String::from_utf8_lossy(&lines)
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| Chunk::read(data.trim()))
            .collect()
    }
}

/// The beginning of a text that a server sent, on one line.
pub(super) fn excerpt(text: &str) -> String {
    const LENGTH: usize = 300;
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LENGTH)
        .collect();
    let line = line.trim();
    let more = if text.chars().nth(LENGTH).is_some() { "..." } else { "" };
    format!("{line}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_on_one_line() {
        assert_eq!(excerpt(" a\n\u{1b}b "), "a  b");
        assert!(excerpt(&"x".repeat(5000)).len() < 310);
    }

    const STREAM: &str = concat!(
        ": ping\r\n\r\n",
        "data: {\"choices\":[{\"index\":0,\"text\":\"Grüße\",\"finish_reason\":null}],\"usage\":null}\r\n\r\n",
        "data:{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\",\"content\":\"yes\"}}]}\n\n",
        "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,",
        "\"prompt_tokens_details\":{\"cached_tokens\":2}},\"timings\":{\"predicted_ms\":12.5,\"draft_n\":4,\"draft_n_accepted\":3}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let whole = Events::default().push(STREAM.as_bytes()).unwrap();
        let texts: Vec<bool> = whole.iter().map(|chunk| chunk.text).collect();
        assert_eq!(texts, [true, false, true, false, false, false]);
        assert_eq!(whole[3].finish_reason.as_deref(), Some("length"));
        let usage = whole[4].usage.unwrap();
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens()),
            (7, 3, 2)
        );
        assert_eq!(whole[4].decode_ms, Some(12.5));
        assert_eq!(
            whole[4].drafts.map(|drafts| (drafts.computed, drafts.accepted)),
            Some((4, 3))
        );
        let content: String = whole.iter().map(|chunk| chunk.content.as_str()).collect();
        assert_eq!(content, "yes");
        assert!(whole[5].done);
        for size in [1, 2, 3, 50] {
            let mut events = Events::default();
            let pieces = STREAM.as_bytes().chunks(size);
            let cut: Vec<Chunk> = pieces.flat_map(|piece| events.push(piece).unwrap()).collect();
            assert_eq!(cut, whole, "pieces of {size}");
        }
    }

    #[test]
    fn errors_of_the_server_are_told() {
        let push = |text: &str| Events::default().push(text.as_bytes()).unwrap_err().to_string();
        let error = push("data: {\"error\":{\"message\":\"out of memory\"}}\n\n");
        assert!(error.contains("out of memory"), "{error}");
        let error = push("data: <html>\n\n");
        assert!(error.contains("not a completion"), "{error}");
        let endless = vec![b'x'; MAX_LINE + 1];
        assert!(Events::default().push(&endless).is_err());
    }
}
