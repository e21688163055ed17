//! The chunks of a streamed answer as typed output.

use std::time::{Duration, Instant};

use super::events::Broken;
use super::thoughts::{Part, Thoughts};
use super::wire::{Choice, Chunk, Delta, Logprobs, Token, Usage as ToldUsage};
use crate::config::UpstreamReasoning;
use crate::engine::{Candidate, PrefillProgress, Timings, TokenLogprob, Usage};
use crate::generation::{FinishReason, Output, Piece, Totals};

/// Calls of a choice.
const CALLS: usize = 256;

/// An answer while it comes.
pub(super) struct Answer {
    choices: Vec<Told>,
    unfinished: usize,
    /// The end of the choice that ended last: it is told with the totals.
    last: Option<(usize, FinishReason)>,
    usage: Option<ToldUsage>,
    /// Where the server does not count.
    pieces: u32,
    started: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
}

/// A choice while it comes.
struct Told {
    thoughts: Thoughts,
    calls: Vec<Call>,
    finished: bool,
}

/// A call that has begun, or waits for its name.
#[derive(Default)]
struct Call {
    /// The server's number.
    number: u64,
    id: Option<String>,
    /// What came before the name.
    held: String,
    /// Our number, once it has begun.
    index: Option<usize>,
}

impl Answer {
    /// `choices` are awaited; `reasoning` is `None` where thoughts stay in the content.
    pub(super) fn new(choices: usize, reasoning: Option<UpstreamReasoning>, started: Instant) -> Self {
        let told = || Told {
            thoughts: Thoughts::new(reasoning.unwrap_or(UpstreamReasoning::Fields)),
            calls: Vec::new(),
            finished: false,
        };
        Self {
            choices: (0..choices).map(|_| told()).collect(),
            unfinished: choices,
            last: None,
            usage: None,
            pieces: 0,
            started,
            first_token: None,
            last_token: started,
        }
    }

    /// Whether all choices have ended; only the counts may come.
    pub(super) fn is_complete(&self) -> bool {
        self.unfinished == 0
    }

    /// Since the request until the first text, if there was one.
    pub(super) fn time_to_first_token(&self) -> Option<Duration> {
        Some(self.first_token? - self.started)
    }

    /// Takes a chunk; what it brings is added to `out`.
    pub(super) fn take(&mut self, chunk: Chunk, now: Instant, out: &mut Vec<Output>) -> Result<(), Broken> {
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage);
        }
        if let Some(progress) = chunk.prompt_progress {
            let piece = Piece::Progress(PrefillProgress {
                slot: 0,
                total: progress.total,
                cached: progress.cache,
                processed: progress.processed,
                elapsed: Duration::try_from_secs_f64(progress.time_ms / 1e3).unwrap_or_default(),
            });
            out.push(Output {
                choice: 0,
                piece,
                tokens: 0,
            });
        }
        for choice in chunk.choices.into_iter().flatten() {
            self.choice(choice, now, out)?;
        }
        Ok(())
    }

    fn choice(&mut self, told: Choice, now: Instant, out: &mut Vec<Output>) -> Result<(), Broken> {
        let index = told.index;
        let Some(choice) = self.choices.get_mut(index) else {
            return Err(Broken::NotJson(format!("a choice {index} that was not asked for")));
        };
        // Some servers repeat the end.
        if choice.finished {
            return Ok(());
        }
        let begin = out.len();
        let mut put = |piece: Piece| {
            out.push(Output {
                choice: index,
                piece,
                tokens: 0,
            });
        };
        let logprobs = told.logprobs.map(logprobs).unwrap_or_default();
        if let Some(text) = told.text.filter(|text| !text.is_empty()) {
            put(content(text, logprobs));
        } else if let Some(delta) = told.delta {
            choice.delta(delta, logprobs, &mut put)?;
        }
        if let Some(reason) = &told.finish_reason {
            choice.finish(&mut put);
            choice.finished = true;
            self.unfinished -= 1;
            let reason = match reason.as_str() {
                "length" => FinishReason::Length,
                "abort" | "error" => return Err(Broken::Connection("the server gave it up".to_owned())),
                _ if !choice.calls.is_empty() => FinishReason::ToolCalls,
                "tool_calls" | "function_call" => FinishReason::ToolCalls,
                _ => match told.stop_reason.as_str() {
                    Some(stop) => FinishReason::StopString(stop.to_owned()),
                    None => FinishReason::EndOfText,
                },
            };
            if self.unfinished == 0 {
                self.last = Some((index, reason));
            } else {
                put(Piece::Finished { reason, totals: None });
            }
        }
        // Servers do not tell the tokens of a piece; mostly it is one.
        for output in &mut out[begin..] {
            if !matches!(output.piece, Piece::Finished { .. }) {
                output.tokens = 1;
                self.pieces = self.pieces.saturating_add(1);
                self.first_token.get_or_insert(now);
                self.last_token = now;
            }
        }
        Ok(())
    }

    /// The last piece, when nothing more comes; `None` if the answer has no end.
    pub(super) fn end(&mut self) -> Option<Output> {
        let (choice, reason) = self.last.take()?;
        Some(Output {
            choice,
            piece: Piece::Finished {
                reason,
                totals: Some(self.totals()),
            },
            tokens: 0,
        })
    }

    pub(super) fn totals(&self) -> Totals {
        let usage = self.usage.unwrap_or_default();
        let prompt = usage.prompt_tokens_details.unwrap_or_default();
        let completion = usage.completion_tokens_details.unwrap_or_default();
        let decode = self.first_token.map_or(Duration::ZERO, |first| self.last_token - first);
        Totals {
            usage: Usage {
                prompt_tokens: usage.prompt_tokens.unwrap_or(0),
                completion_tokens: usage.completion_tokens.unwrap_or(self.pieces),
                cached_tokens: prompt.cached_tokens.unwrap_or(0),
                ..Usage::default()
            },
            reasoning_tokens: completion.reasoning_tokens.unwrap_or(0),
            timings: Timings {
                queue: Duration::ZERO,
                prefill: self.time_to_first_token().unwrap_or_default(),
                decode,
            },
        }
    }
}

impl Told {
    fn delta(
        &mut self,
        delta: Delta,
        mut logprobs: Vec<TokenLogprob>,
        put: &mut impl FnMut(Piece),
    ) -> Result<(), Broken> {
        let thought = delta
            .reasoning_content
            .filter(|text| !text.is_empty())
            .or(delta.reasoning);
        if let Some(text) = thought.filter(|text| !text.is_empty()) {
            self.thoughts.come_apart();
            put(Piece::Reasoning { text });
        }
        for text in [delta.content, delta.refusal].into_iter().flatten() {
            for part in self.thoughts.put(&text) {
                put(match part {
                    Part::Reasoning(text) => Piece::Reasoning { text },
                    Part::Content(text) => content(text, std::mem::take(&mut logprobs)),
                });
            }
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.call(call, put)?;
        }
        Ok(())
    }

    fn call(&mut self, told: super::wire::Call, put: &mut impl FnMut(Piece)) -> Result<(), Broken> {
        let function = told.function.unwrap_or_default();
        let id = told.id.filter(|id| !id.is_empty());
        let name = function.name.filter(|name| !name.is_empty());
        let latest = self.calls.len().checked_sub(1);
        let number = told.index.unwrap_or(0);
        let known = self.calls.iter().rposition(|call| call.number == number);
        // Some servers number all calls 0, or none.
        let at = match known.or(latest.filter(|_| told.index.is_none())) {
            Some(index)
                if !(self.calls[index].index.is_some()
                    && name.is_some()
                    && id.is_some()
                    && self.calls[index].id != id) =>
            {
                index
            }
            _ if self.calls.len() >= CALLS => return Err(Broken::NotJson(format!("more than {CALLS} calls"))),
            _ => {
                self.calls.push(Call {
                    number,
                    ..Call::default()
                });
                self.calls.len() - 1
            }
        };
        let begun = self.calls.iter().filter(|call| call.index.is_some()).count();
        let call = &mut self.calls[at];
        let arguments = match function.arguments {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text,
            object => object.to_string(),
        };
        if let Some(index) = call.index {
            if !arguments.is_empty() {
                put(Piece::ToolCallArguments { index, text: arguments });
            }
            return Ok(());
        }
        call.id = call.id.take().or(id);
        call.held.push_str(&arguments);
        let Some(name) = name else { return Ok(()) };
        let index = *call.index.insert(begun);
        let id = call
            .id
            .get_or_insert_with(|| format!("call_{}", uuid::Uuid::new_v4().simple()));
        put(Piece::ToolCallStart {
            index,
            id: id.clone(),
            name,
        });
        let text = std::mem::take(&mut call.held);
        if !text.is_empty() {
            put(Piece::ToolCallArguments { index, text });
        }
        Ok(())
    }

    fn finish(&mut self, put: &mut impl FnMut(Piece)) {
        for part in self.thoughts.finish() {
            put(match part {
                Part::Reasoning(text) => Piece::Reasoning { text },
                Part::Content(text) => content(text, Vec::new()),
            });
        }
        // A call without a name cannot be made.
        self.calls.retain(|call| call.index.is_some());
    }
}

fn content(text: String, logprobs: Vec<TokenLogprob>) -> Piece {
    Piece::Content {
        text,
        tokens: Vec::new(),
        logprobs,
    }
}

/// Servers tell no token ids.
const NO_TOKEN: crate::engine::Token = -1;

fn logprobs(told: Logprobs) -> Vec<TokenLogprob> {
    if let Some(tokens) = told.content {
        let one = |token: &Token| Candidate {
            token: NO_TOKEN,
            bytes: token.bytes.clone().unwrap_or_else(|| token.token.clone().into_bytes()),
            logprob: token.logprob,
        };
        let token = |token: Token| TokenLogprob {
            chosen: one(&token),
            top: token.top_logprobs.iter().flatten().map(one).collect(),
        };
        return tokens.into_iter().map(token).collect();
    }
    let candidate = |text: &str, logprob: f32| Candidate {
        token: NO_TOKEN,
        bytes: text.as_bytes().to_vec(),
        logprob,
    };
    let tokens = told.tokens.unwrap_or_default();
    let (logprobs, tops) = (
        told.token_logprobs.unwrap_or_default(),
        told.top_logprobs.unwrap_or_default(),
    );
    let token = |(index, text): (usize, &String)| {
        let top = tops.get(index).and_then(Option::as_ref).into_iter().flatten();
        #[expect(clippy::cast_possible_truncation, reason = "as exact as it is anywhere")]
        let top = top.map(|(text, logprob)| candidate(text, logprob.as_f64().unwrap_or_default() as f32));
        TokenLogprob {
            chosen: candidate(text, logprobs.get(index).copied().flatten().unwrap_or_default()),
            top: top.collect(),
        }
    };
    tokens.iter().enumerate().map(token).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(choices: usize, chunks: &[Value]) -> (Vec<Piece>, Option<Totals>) {
        let start = Instant::now();
        let mut answer = Answer::new(choices, Some(UpstreamReasoning::Auto), start);
        let mut out = Vec::new();
        for chunk in chunks {
            let chunk = serde_json::from_value(chunk.clone()).unwrap();
            answer.take(chunk, start + Duration::from_millis(5), &mut out).unwrap();
        }
        let end = answer.end();
        let mut pieces: Vec<Piece> = out.into_iter().map(|output| output.piece).collect();
        let mut told = None;
        if let Some(Output {
            piece: Piece::Finished { reason, totals },
            ..
        }) = end
        {
            told = totals;
            pieces.push(Piece::Finished { reason, totals: None });
        }
        (pieces, told)
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    fn end(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    fn text(text: &str) -> Piece {
        content(text.into(), Vec::new())
    }

    fn thought(text: &str) -> Piece {
        Piece::Reasoning { text: text.into() }
    }

    fn finished(reason: FinishReason) -> Piece {
        Piece::Finished { reason, totals: None }
    }

    #[test]
    fn thoughts_come_in_fields_or_tags() {
        for (first, second) in [
            (json!({"reasoning_content": "so"}), json!({"content": "<think>yes"})),
            (json!({"reasoning": "so"}), json!({"content": "<think>yes"})),
            // Both names have the same text.
            (
                json!({"reasoning": "so", "reasoning_content": "so"}),
                json!({"content": "<think>yes"}),
            ),
        ] {
            let (pieces, _) = read(
                1,
                &[
                    delta(json!({"role": "assistant", "content": ""})),
                    delta(first),
                    delta(second),
                    end("stop"),
                ],
            );
            assert_eq!(
                pieces,
                [thought("so"), text("<think>yes"), finished(FinishReason::EndOfText)]
            );
        }
        let (pieces, _) = read(1, &[delta(json!({"content": "<think>so</think>yes"})), end("stop")]);
        assert_eq!(pieces, [thought("so"), text("yes"), finished(FinishReason::EndOfText)]);
    }

    #[test]
    fn calls_have_ids_names_and_numbers_whatever_servers_do() {
        let start = |index, id: &str, name: &str| Piece::ToolCallStart {
            index,
            id: id.into(),
            name: name.into(),
        };
        let more = |index, text: &str| Piece::ToolCallArguments {
            index,
            text: text.into(),
        };
        let call = |call: Value| delta(json!({"tool_calls": [call]}));
        let (pieces, _) = read(
            1,
            &[
                call(json!({"index": 3, "id": "a", "function": {"name": "f", "arguments": ""}})),
                call(json!({"index": 3, "function": {"arguments": "{\"x\":"}})),
                call(json!({"index": 3, "id": "a", "function": {"name": "f", "arguments": "1}"}})),
                // The name comes late.
                call(json!({"index": 4, "id": "b", "function": {"arguments": "{"}})),
                call(json!({"index": 4, "function": {"name": "g", "arguments": "}"}})),
                // The same number again, but another call.
                call(json!({"index": 4, "id": "c", "function": {"name": "h", "arguments": {"y": 2}}})),
                end("stop"),
            ],
        );
        let expect = [
            start(0, "a", "f"),
            more(0, "{\"x\":"),
            more(0, "1}"),
            start(1, "b", "g"),
            more(1, "{}"),
            start(2, "c", "h"),
            more(2, "{\"y\":2}"),
            finished(FinishReason::ToolCalls),
        ];
        assert_eq!(pieces, expect);
        let (pieces, _) = read(
            1,
            &[
                call(json!({"function": {"name": "f", "arguments": "{}"}})),
                end("tool_calls"),
            ],
        );
        let Piece::ToolCallStart { id, .. } = &pieces[0] else {
            panic!("{pieces:?}")
        };
        assert!(id.starts_with("call_"));
    }

    #[test]
    fn ends_and_counts_are_told() {
        let usage = json!({"choices": [], "usage": {
            "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}});
        let (_, totals) = read(1, &[delta(json!({"content": "a"})), end("stop"), usage]);
        let totals = totals.unwrap();
        assert_eq!(
            (
                totals.usage.prompt_tokens,
                totals.usage.completion_tokens,
                totals.usage.cached_tokens
            ),
            (10, 5, 4)
        );
        assert_eq!((totals.reasoning_tokens, totals.timings.prefill.as_millis()), (2, 5));
        let stop = json!({"choices": [{"index": 0, "text": "", "finish_reason": "stop", "stop_reason": "END"}]});
        assert_eq!(read(1, &[stop]).0, [finished(FinishReason::StopString("END".into()))]);
        // Two choices: the one that ends last has the totals, and none is complete before.
        let part = |index: usize, end: Value| json!({"choices": [{"index": index, "text": "x", "finish_reason": end}]});
        let (pieces, totals) = read(2, &[part(1, json!("length")), part(0, Value::Null)]);
        assert_eq!(
            (pieces, totals),
            (vec![text("x"), finished(FinishReason::Length), text("x")], None)
        );
        let (_, totals) = read(2, &[part(1, json!("length")), part(0, json!("stop"))]);
        assert_eq!(totals.unwrap().usage.completion_tokens, 2);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut answer = Answer::new(1, None, Instant::now());
        for bad in [json!({"choices": [{"index": 1, "text": "x"}]}), end("abort")] {
            let chunk = serde_json::from_value(bad).unwrap();
            assert!(answer.take(chunk, Instant::now(), &mut Vec::new()).is_err());
        }
    }
}
