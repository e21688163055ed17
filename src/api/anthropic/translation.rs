//! A streamed message: blocks one after the other.

use serde::Serialize;

use super::error::ErrorBody;
use super::wire::{Block, End, Message, Usage};
use crate::api::error::ApiError;
use crate::api::events::{Sink, Translator};
use crate::generation::{Piece, ToolCall};

/// Turns an answer into the events of a message.
pub(super) struct Stream {
    /// Until the first piece comes, which tells how long the prompt is.
    start: Option<Message>,
    /// The message's id, which signs its thoughts.
    id: String,
    /// The block that goes on.
    open: Option<Kind>,
    /// Blocks that have begun.
    blocks: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    ToolUse,
}

/// An event with its own fields beside its name.
#[derive(Serialize)]
struct Named<T> {
    #[serde(rename = "type")]
    name: &'static str,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize)]
struct Started<'m> {
    message: &'m Message,
}

#[derive(Serialize)]
struct BlockStarted {
    index: usize,
    content_block: Block,
}

#[derive(Serialize)]
struct BlockDelta<'t> {
    #[serde(rename = "type")]
    name: &'static str,
    index: usize,
    delta: Delta<'t>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Delta<'t> {
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'t str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'t str },
    #[serde(rename = "text_delta")]
    Text { text: &'t str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'t str },
}

#[derive(Serialize)]
struct BlockStopped {
    index: usize,
}

#[derive(Serialize)]
struct MessageDelta {
    delta: End,
    usage: Usage,
}

#[derive(Serialize)]
struct Nothing {}

const BLOCK_DELTA: &str = "content_block_delta";

fn put(sink: &mut impl Sink, name: &'static str, fields: impl Serialize) {
    sink.put(name, &Named { name, fields });
}

impl Stream {
    pub(super) fn new(model: &str) -> Self {
        let message = Message::new(model);
        Self {
            id: message.id.clone(),
            start: Some(message),
            open: None,
            blocks: 0,
        }
    }

    /// Begins the message; counts of the prompt are 0 where they are not known yet.
    fn start(&mut self, prompt_tokens: u32, cached_tokens: u32, sink: &mut impl Sink) {
        if let Some(message) = self.start.take() {
            let message = &message.with_prompt(prompt_tokens, cached_tokens);
            put(sink, "message_start", Started { message });
            put(sink, "ping", Nothing {});
        }
    }

    /// More of the block that goes on.
    fn delta(&self, delta: Delta<'_>, sink: &mut impl Sink) {
        let event = BlockDelta {
            name: BLOCK_DELTA,
            index: self.blocks.saturating_sub(1),
            delta,
        };
        sink.put(BLOCK_DELTA, &event);
    }

    fn close(&mut self, sink: &mut impl Sink) {
        let Some(open) = self.open.take() else { return };
        if open == Kind::Thinking {
            self.delta(Delta::Signature { signature: &self.id }, sink);
        }
        let index = self.blocks.saturating_sub(1);
        put(sink, "content_block_stop", BlockStopped { index });
    }

    fn open(&mut self, kind: Kind, content_block: Block, sink: &mut impl Sink) {
        self.close(sink);
        let index = self.blocks;
        put(sink, "content_block_start", BlockStarted { index, content_block });
        self.open = Some(kind);
        self.blocks += 1;
    }
}

impl Translator for Stream {
    const SILENCE: &'static [u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

    fn begin(&mut self, _: &mut impl Sink) {}

    fn take(&mut self, piece: Piece, sink: &mut impl Sink) {
        if let Piece::Progress(progress) = piece {
            return self.start(progress.total, progress.cached, sink);
        }
        self.start(0, 0, sink);
        match piece {
            Piece::Progress(_) | Piece::RoutedExperts(_) => {}
            Piece::Reasoning { text } => {
                if self.open != Some(Kind::Thinking) {
                    let block = Block::Thinking {
                        thinking: String::new(),
                        signature: String::new(),
                    };
                    self.open(Kind::Thinking, block, sink);
                }
                self.delta(Delta::Thinking { thinking: &text }, sink);
            }
            Piece::Content { text, .. } => {
                if self.open != Some(Kind::Text) {
                    self.open(Kind::Text, Block::Text { text: String::new() }, sink);
                }
                self.delta(Delta::Text { text: &text }, sink);
            }
            Piece::ToolCallStart { id, name, .. } => {
                let call = ToolCall {
                    id,
                    name,
                    arguments: String::new(),
                };
                self.open(Kind::ToolUse, call.into(), sink);
            }
            Piece::ToolCallArguments { text, .. } => {
                self.delta(Delta::InputJson { partial_json: &text }, sink);
            }
            Piece::Finished { reason, totals } => {
                self.close(sink);
                let delta = MessageDelta {
                    delta: (&reason).into(),
                    usage: (&totals.unwrap_or_default()).into(),
                };
                put(sink, "message_delta", delta);
                put(sink, "message_stop", Nothing {});
            }
        }
    }

    fn fail(&mut self, error: &ApiError, sink: &mut impl Sink) {
        sink.put("error", &ErrorBody::new(error, None));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::{PrefillProgress, Usage as Tokens};
    use crate::generation::{FinishReason, Totals};

    fn events(pieces: impl IntoIterator<Item = Piece>) -> Vec<Value> {
        let mut stream = Stream::new("m");
        let mut events = Vec::new();
        stream.begin(&mut events);
        for piece in pieces {
            stream.take(piece, &mut events);
        }
        events
    }

    fn finished(reason: FinishReason) -> Piece {
        Piece::Finished {
            reason,
            totals: Some(Totals {
                usage: Tokens {
                    prompt_tokens: 10,
                    completion_tokens: 5,
                    cached_tokens: 4,
                    ..Tokens::default()
                },
                reasoning_tokens: 2,
                ..Totals::default()
            }),
        }
    }

    fn text(text: &str) -> Piece {
        Piece::Content {
            text: text.into(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    #[test]
    fn a_message_is_blocks_in_order() {
        let progress = Piece::Progress(PrefillProgress {
            slot: 0,
            total: 10,
            cached: 4,
            processed: 10,
            elapsed: std::time::Duration::ZERO,
        });
        let call = |index, id: &str| Piece::ToolCallStart {
            index,
            id: id.into(),
            name: "f".into(),
        };
        let arguments = |index, text: &str| Piece::ToolCallArguments {
            index,
            text: text.into(),
        };
        let events = events([
            progress,
            Piece::Reasoning { text: "so".into() },
            Piece::Reasoning { text: " what".into() },
            text("a"),
            text("b"),
            call(0, "x"),
            arguments(0, "{\"a\":"),
            arguments(0, "1}"),
            call(1, "y"),
            arguments(1, "{}"),
            finished(FinishReason::ToolCalls),
        ]);
        let id = events[0]["message"]["id"].as_str().unwrap();
        assert!(id.starts_with("msg_"));
        let usage = |output: u32, thinking: u32| {
            json!({
                "input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": output,
                "output_tokens_details": {"thinking_tokens": thinking},
            })
        };
        let block =
            |index: usize, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
        let delta = |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
        let stop = |index: usize| json!({"type": "content_block_stop", "index": index});
        let expect = [
            json!({"type": "message_start", "message": {
                "id": id, "type": "message", "role": "assistant", "model": "m", "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": usage(0, 0)}}),
            json!({"type": "ping"}),
            block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "so"})),
            delta(0, json!({"type": "thinking_delta", "thinking": " what"})),
            delta(0, json!({"type": "signature_delta", "signature": id})),
            stop(0),
            block(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "a"})),
            delta(1, json!({"type": "text_delta", "text": "b"})),
            stop(1),
            block(2, json!({"type": "tool_use", "id": "x", "name": "f", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "1}"})),
            stop(2),
            block(3, json!({"type": "tool_use", "id": "y", "name": "f", "input": {}})),
            delta(3, json!({"type": "input_json_delta", "partial_json": "{}"})),
            stop(3),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null},
                "usage": usage(5, 2)}),
            json!({"type": "message_stop"}),
        ];
        assert_eq!(events, expect);
    }

    #[test]
    fn ends_are_told() {
        for (reason, expect) in [
            (FinishReason::EndOfText, json!(["end_turn", null])),
            (FinishReason::Length, json!(["max_tokens", null])),
            (FinishReason::StopString("x".into()), json!(["stop_sequence", "x"])),
        ] {
            let events = events([text("a"), finished(reason)]);
            let delta = &events[events.len() - 2]["delta"];
            assert_eq!(json!([delta["stop_reason"], delta["stop_sequence"]]), expect);
        }
        // An answer of nothing is a message without blocks.
        let names: Vec<Value> = events([finished(FinishReason::EndOfText)])
            .iter()
            .map(|event| event["type"].clone())
            .collect();
        assert_eq!(names, ["message_start", "ping", "message_delta", "message_stop"]);
    }

    #[test]
    fn a_failure_is_an_event() {
        let mut events = Vec::new();
        Stream::new("m").fail(&ApiError::internal("out of luck"), &mut events);
        assert_eq!(
            events,
            [json!({"type": "error", "error": {"type": "api_error", "message": "out of luck"}})]
        );
    }
}
