//! A response that grows with the output of the model, and the events that tell so.

use std::sync::Arc;

use serde::Serialize;

use super::store::{Store, Stored};
use super::wire::{Failure, Incomplete, Item, Part, Response, Status, item_id};
use crate::api::error::ApiError;
use crate::api::events::{Sink, Translator};
use crate::api::openai::logprobs::ChatToken;
use crate::engine::TokenLogprob;
use crate::generation::{FinishReason, Piece, Totals};

/// One answer: it becomes a complete [`Response`].
pub(super) struct Answer {
    pub(super) response: Response,
    /// The item that goes on; not in `response.output` yet.
    open: Option<Open>,
    /// Number of the next event.
    sequence: u64,
    /// The request's items, as JSON.
    input: Vec<u8>,
    /// Where the response is to be found again.
    store: Option<Arc<Store>>,
}

/// An item that goes on.
struct Open {
    id: String,
    kind: Kind,
    text: String,
    /// Of the tokens of the text, if the request asked for them.
    logprobs: Vec<ChatToken>,
}

enum Kind {
    Reasoning,
    Message,
    FunctionCall { call_id: String, name: String },
}

/// An event with its own fields beside those that all have.
#[derive(Serialize)]
struct Event<T> {
    #[serde(rename = "type")]
    name: &'static str,
    sequence_number: u64,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize)]
struct OfResponse<'r> {
    response: &'r Response,
}

#[derive(Serialize)]
struct OfItem {
    output_index: usize,
    item: Item,
}

/// Fields of an event about an item that goes on.
#[derive(Serialize)]
struct Within<'i, T> {
    item_id: &'i str,
    output_index: usize,
    /// An item has one part at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize)]
struct OfPart {
    part: Part,
}

#[derive(Serialize)]
struct Delta<'t> {
    delta: &'t str,
}

#[derive(Serialize)]
struct TextDelta<'t> {
    delta: &'t str,
    logprobs: &'t [ChatToken],
}

#[derive(Serialize)]
struct Done<'t> {
    text: &'t str,
}

#[derive(Serialize)]
struct TextDone<'t> {
    text: &'t str,
    logprobs: &'t [ChatToken],
}

#[derive(Serialize)]
struct CallDone<'t> {
    name: &'t str,
    arguments: &'t str,
}

impl Open {
    /// The item with what it has so far.
    fn item(&self, status: Status) -> Item {
        let id = self.id.clone();
        match &self.kind {
            Kind::Reasoning => Item::Reasoning {
                id,
                status,
                summary: Vec::new(),
                content: self.parts(),
                encrypted_content: (),
            },
            Kind::Message => Item::Message {
                id,
                status,
                role: "assistant",
                content: self.parts(),
            },
            Kind::FunctionCall { call_id, name } => Item::FunctionCall {
                id,
                status,
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: self.text.clone(),
            },
        }
    }

    /// No part without a text.
    fn parts(&self) -> Vec<Part> {
        let part = (!self.text.is_empty()).then(|| self.part());
        part.flatten().into_iter().collect()
    }

    fn part(&self) -> Option<Part> {
        let text = self.text.clone();
        match self.kind {
            Kind::Reasoning => Some(Part::ReasoningText { text }),
            Kind::Message => Some(Part::OutputText {
                text,
                annotations: Vec::new(),
                logprobs: self.logprobs.clone(),
            }),
            Kind::FunctionCall { .. } => None,
        }
    }

    fn within<T>(&self, output_index: usize, fields: T) -> Within<'_, T> {
        Within {
            item_id: &self.id,
            output_index,
            content_index: (!matches!(self.kind, Kind::FunctionCall { .. })).then_some(0),
            fields,
        }
    }
}

fn put(sink: &mut impl Sink, sequence: &mut u64, name: &'static str, fields: impl Serialize) {
    let event = Event {
        name,
        sequence_number: *sequence,
        fields,
    };
    sink.put(name, &event);
    *sequence += 1;
}

impl Answer {
    /// `input` are the request's items; they are kept with the response in the store, if there is one.
    pub(super) fn new(response: Response, input: Vec<u8>, store: Option<Arc<Store>>) -> Self {
        Self {
            response,
            open: None,
            sequence: 0,
            input,
            store,
        }
    }

    /// The response as it can be continued.
    pub(super) fn stored(&self) -> Stored {
        Stored {
            // Writing JSON values to memory cannot fail.
            response: serde_json::to_vec(&self.response).unwrap_or_default().into(),
            input: self.input.clone().into(),
            previous: self.response.settings.previous_response_id.clone(),
        }
    }

    /// Tells the state of the whole response.
    fn tell(&mut self, name: &'static str, sink: &mut impl Sink) {
        let response = &self.response;
        put(sink, &mut self.sequence, name, OfResponse { response });
    }

    fn open(&mut self, kind: Kind, sink: &mut impl Sink) {
        self.close(Status::Completed, sink);
        let prefix = match kind {
            Kind::Reasoning => "rs",
            Kind::Message => "msg",
            Kind::FunctionCall { .. } => "fc",
        };
        let output_index = self.response.output.len();
        let open = Open {
            id: item_id(prefix, &self.response.id, output_index),
            kind,
            text: String::new(),
            logprobs: Vec::new(),
        };
        let item = open.item(Status::InProgress);
        put(
            sink,
            &mut self.sequence,
            "response.output_item.added",
            OfItem { output_index, item },
        );
        if let Some(part) = open.part() {
            let fields = open.within(output_index, OfPart { part });
            put(sink, &mut self.sequence, "response.content_part.added", fields);
        }
        self.open = Some(open);
    }

    /// More of the item that goes on.
    fn more(&mut self, text: &str, logprobs: &[TokenLogprob], sink: &mut impl Sink) {
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let known = open.logprobs.len();
        open.logprobs.extend(logprobs.iter().map(ChatToken::from));
        let index = self.response.output.len();
        let sequence = &mut self.sequence;
        match open.kind {
            Kind::Reasoning => {
                let fields = open.within(index, Delta { delta: text });
                put(sink, sequence, "response.reasoning_text.delta", fields);
            }
            Kind::Message => {
                let delta = TextDelta {
                    delta: text,
                    logprobs: &open.logprobs[known..],
                };
                put(sink, sequence, "response.output_text.delta", open.within(index, delta));
            }
            Kind::FunctionCall { .. } => {
                let fields = open.within(index, Delta { delta: text });
                put(sink, sequence, "response.function_call_arguments.delta", fields);
            }
        }
    }

    fn close(&mut self, status: Status, sink: &mut impl Sink) {
        let Some(open) = self.open.take() else { return };
        let output_index = self.response.output.len();
        let sequence = &mut self.sequence;
        let text = &open.text;
        match &open.kind {
            Kind::Reasoning => {
                let fields = open.within(output_index, Done { text });
                put(sink, sequence, "response.reasoning_text.done", fields);
            }
            Kind::Message => {
                let fields = open.within(
                    output_index,
                    TextDone {
                        text,
                        logprobs: &open.logprobs,
                    },
                );
                put(sink, sequence, "response.output_text.done", fields);
            }
            Kind::FunctionCall { name, .. } => {
                let fields = open.within(output_index, CallDone { name, arguments: text });
                put(sink, sequence, "response.function_call_arguments.done", fields);
            }
        }
        if let Some(part) = open.part() {
            let fields = open.within(output_index, OfPart { part });
            put(sink, sequence, "response.content_part.done", fields);
        }
        let item = open.item(status);
        put(
            sink,
            sequence,
            "response.output_item.done",
            OfItem { output_index, item },
        );
        self.response.output.push(open.item(status));
    }

    fn finish(&mut self, reason: &FinishReason, totals: &Totals, sink: &mut impl Sink) {
        let name = match reason {
            FinishReason::Length => {
                self.close(Status::Incomplete, sink);
                self.response.status = Status::Incomplete;
                self.response.incomplete_details = Some(Incomplete {
                    reason: "max_output_tokens",
                });
                "response.incomplete"
            }
            FinishReason::EndOfText | FinishReason::StopString(_) | FinishReason::ToolCalls => {
                self.close(Status::Completed, sink);
                self.response.complete();
                "response.completed"
            }
        };
        self.response.usage = Some(totals.into());
        // Before it is told: the next request may continue it.
        if let Some(store) = self.store.take() {
            store.insert(&self.response.id, self.stored());
        }
        self.tell(name, sink);
    }
}

impl Translator for Answer {
    const SILENCE: &'static [u8] = b": ping\n\n";

    fn begin(&mut self, sink: &mut impl Sink) {
        self.tell("response.created", sink);
        self.tell("response.in_progress", sink);
    }

    fn take(&mut self, piece: Piece, sink: &mut impl Sink) {
        let kind = self.open.as_ref().map(|open| &open.kind);
        match piece {
            Piece::Progress(_) | Piece::RoutedExperts(_) => {}
            Piece::Reasoning { text } => {
                if !matches!(kind, Some(Kind::Reasoning)) {
                    self.open(Kind::Reasoning, sink);
                }
                self.more(&text, &[], sink);
            }
            Piece::Content { text, logprobs, .. } => {
                if !matches!(kind, Some(Kind::Message)) {
                    self.open(Kind::Message, sink);
                }
                self.more(&text, &logprobs, sink);
            }
            Piece::ToolCallStart { id: call_id, name, .. } => {
                self.open(Kind::FunctionCall { call_id, name }, sink);
            }
            Piece::ToolCallArguments { text, .. } => self.more(&text, &[], sink),
            Piece::Finished { reason, totals } => self.finish(&reason, &totals.unwrap_or_default(), sink),
        }
    }

    fn fail(&mut self, error: &ApiError, sink: &mut impl Sink) {
        self.response.status = Status::Failed;
        self.response.error = Some(Failure {
            code: "server_error",
            message: error.to_string(),
        });
        self.tell("response.failed", sink);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::openai::responses::wire::Settings;
    use crate::engine::Candidate;

    fn answer() -> Answer {
        Answer::new(Response::new("m", Settings::default()), b"[]".to_vec(), None)
    }

    fn events(answer: &mut Answer, pieces: impl IntoIterator<Item = Piece>) -> Vec<Value> {
        let mut events = Vec::new();
        answer.begin(&mut events);
        for piece in pieces {
            answer.take(piece, &mut events);
        }
        for (number, event) in events.iter_mut().enumerate() {
            let sequence = event.as_object_mut().unwrap().shift_remove("sequence_number");
            assert_eq!(sequence, Some(number.into()));
        }
        events
    }

    fn text(text: &str) -> Piece {
        Piece::Content {
            text: text.into(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    fn finished(reason: FinishReason) -> Piece {
        Piece::Finished {
            reason,
            totals: Some(Totals::default()),
        }
    }

    fn names(events: &[Value]) -> Vec<&str> {
        events.iter().map(|event| event["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn thoughts_text_and_calls_are_items() {
        let mut answer = answer();
        let events = events(
            &mut answer,
            [
                Piece::Reasoning { text: "so".into() },
                text("a"),
                text("b"),
                Piece::ToolCallStart {
                    index: 0,
                    id: "c1".into(),
                    name: "f".into(),
                },
                Piece::ToolCallArguments {
                    index: 0,
                    text: "{}".into(),
                },
                finished(FinishReason::ToolCalls),
            ],
        );
        assert_eq!(
            names(&events),
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.reasoning_text.delta",
                "response.reasoning_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
        let last = &events[19]["response"];
        let output = &last["output"];
        let text = json!({"type": "output_text", "text": "ab", "annotations": [], "logprobs": []});
        let thought = json!({"type": "reasoning_text", "text": "so"});
        let ids: Vec<&str> = (0..3).map(|item| output[item]["id"].as_str().unwrap()).collect();
        assert!(ids[0].starts_with("rs_") && ids[1].starts_with("msg_") && ids[2].starts_with("fc_"));
        let expect = json!([
            {"type": "reasoning", "id": ids[0], "status": "completed", "summary": [], "content": [thought],
                "encrypted_content": null},
            {"type": "message", "id": ids[1], "status": "completed", "role": "assistant", "content": [text]},
            {"type": "function_call", "id": ids[2], "status": "completed", "call_id": "c1", "name": "f", "arguments": "{}"},
        ]);
        assert_eq!(output, &expect);
        assert_eq!(last["status"], "completed");
        assert!(last["completed_at"].is_u64());
        // The events build up the same.
        for (event, item) in [(7, 0), (14, 1), (18, 2)] {
            assert_eq!(events[event]["item"], expect[item]);
            assert_eq!(events[event]["output_index"], item);
        }
        assert_eq!(
            events[10],
            json!({"type": "response.output_text.delta", "item_id": ids[1], "output_index": 1, "content_index": 0,
                "delta": "a", "logprobs": []})
        );
        assert_eq!(
            events[12],
            json!({"type": "response.output_text.done", "item_id": ids[1], "output_index": 1, "content_index": 0,
                "text": "ab", "logprobs": []})
        );
        assert_eq!(
            events[9],
            json!({"type": "response.content_part.added", "item_id": ids[1], "output_index": 1, "content_index": 0,
                "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []}})
        );
        assert_eq!(
            events[17],
            json!({"type": "response.function_call_arguments.done", "item_id": ids[2], "output_index": 2, "name": "f",
                "arguments": "{}"})
        );
        assert_eq!(events[8]["item"]["content"], json!([]));
        assert_eq!(events[8]["item"]["status"], "in_progress");
        assert_eq!(events[0]["response"]["output"], json!([]));
        assert_eq!(events[0]["response"]["usage"], Value::Null);
    }

    #[test]
    fn ends_have_names() {
        let mut cut = answer();
        let events = events(&mut cut, [text("a"), finished(FinishReason::Length)]);
        let last = events.last().unwrap();
        assert_eq!(last["type"], "response.incomplete");
        assert_eq!(
            last["response"]["incomplete_details"],
            json!({"reason": "max_output_tokens"})
        );
        assert_eq!(last["response"]["output"][0]["status"], "incomplete");
        assert_eq!(last["response"]["completed_at"], Value::Null);

        let mut failed = answer();
        let mut events = Vec::new();
        failed.begin(&mut events);
        failed.take(text("a"), &mut events);
        failed.fail(&ApiError::internal("out of luck"), &mut events);
        let last = events.last().unwrap();
        assert_eq!(last["type"], "response.failed");
        assert_eq!(
            last["response"]["error"],
            json!({"code": "server_error", "message": "out of luck"})
        );
    }

    #[test]
    fn probabilities_are_told_with_their_text() {
        let candidate = |text: &str, logprob| Candidate {
            token: 1,
            bytes: text.into(),
            logprob,
        };
        let piece = |text: &str| Piece::Content {
            text: text.into(),
            tokens: Vec::new(),
            logprobs: vec![TokenLogprob {
                chosen: candidate(text, -0.5),
                top: vec![candidate("x", -0.25)],
            }],
        };
        let mut answer = answer();
        let events = events(&mut answer, [piece("a"), piece("b"), finished(FinishReason::EndOfText)]);
        let told = |text: &str, byte: u8| {
            json!({"token": text, "bytes": [byte], "logprob": -0.5,
                "top_logprobs": [{"token": "x", "bytes": [120], "logprob": -0.25}]})
        };
        assert_eq!(events[4]["logprobs"], json!([told("a", 97)]));
        assert_eq!(events[5]["logprobs"], json!([told("b", 98)]));
        let all = json!([told("a", 97), told("b", 98)]);
        assert_eq!(events[6]["logprobs"], all);
        assert_eq!(events[9]["response"]["output"][0]["content"][0]["logprobs"], all);
    }

    #[test]
    fn a_finished_response_is_found_again() {
        let store = Arc::new(Store::default());
        let mut answer = Answer::new(
            Response::new("m", Settings::default()),
            b"[]".to_vec(),
            Some(store.clone()),
        );
        assert!(store.get(&answer.response.id).is_none());
        events(&mut answer, [finished(FinishReason::EndOfText)]);
        let stored = store.get(&answer.response.id).unwrap();
        let response: Value = serde_json::from_slice(&stored.response).unwrap();
        assert_eq!(response["status"], "completed");
    }
}
