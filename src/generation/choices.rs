//! The steps of one or several choices as the output of one answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::Stream;

use super::answer::{End, Step, Steps};
use super::error::GenerationError;
use super::output::{Output, Piece, Totals};

/// Merges choices; the position of a stream is the index of its choice.
pub(super) struct Choices {
    /// `None` for a choice that has finished.
    streams: Vec<Option<Steps>>,
    unfinished: usize,
    /// Who is asked first, so that a busy choice does not keep the others waiting.
    turn: usize,
    /// Choices that share a prompt, one after the other.
    per_prompt: usize,
    totals: Totals,
}

impl Choices {
    /// Of `per_prompt` choices each the prompt is the same, and counts once.
    pub(super) fn new(streams: Vec<Steps>, per_prompt: usize) -> Self {
        Self {
            per_prompt: per_prompt.max(1),
            unfinished: streams.len(),
            streams: streams.into_iter().map(Some).collect(),
            turn: 0,
            totals: Totals::default(),
        }
    }

    fn take(&mut self, choice: usize, step: Option<Result<Step, GenerationError>>) -> Result<Output, GenerationError> {
        let (piece, tokens) = match step {
            Some(Ok(Step::Piece(piece, tokens))) => (piece, tokens),
            Some(Ok(Step::End(end))) => {
                self.streams[choice] = None;
                self.unfinished -= 1;
                self.totals.add(&end, choice.is_multiple_of(self.per_prompt));
                let piece = Piece::Finished {
                    reason: end.reason,
                    totals: (self.unfinished == 0).then_some(self.totals),
                };
                (piece, 0)
            }
            Some(Err(error)) => return Err(self.end(error)),
            None => return Err(self.end(GenerationError::Unfinished)),
        };
        Ok(Output { choice, piece, tokens })
    }

    /// Without one choice the answer is not complete: the others end, too.
    fn end(&mut self, error: GenerationError) -> GenerationError {
        self.streams.clear();
        self.unfinished = 0;
        error
    }
}

impl Stream for Choices {
    type Item = Result<Output, GenerationError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.unfinished == 0 {
            return Poll::Ready(None);
        }
        let count = self.streams.len();
        for step in 0..count {
            let choice = (self.turn + step) % count;
            let Some(stream) = &mut self.streams[choice] else {
                continue;
            };
            if let Poll::Ready(event) = Pin::new(stream).poll_next(cx) {
                self.turn = (choice + 1) % count;
                return Poll::Ready(Some(self.take(choice, event)));
            }
        }
        Poll::Pending
    }
}

impl Totals {
    fn add(&mut self, end: &End, with_prompt: bool) {
        self.usage.completion_tokens += end.usage.completion_tokens;
        self.usage.draft_tokens += end.usage.draft_tokens;
        self.usage.accepted_tokens += end.usage.accepted_tokens;
        if with_prompt {
            self.usage.prompt_tokens += end.usage.prompt_tokens;
            self.usage.cached_tokens += end.usage.cached_tokens;
        }
        self.reasoning_tokens += end.reasoning_tokens;
        self.timings.queue = self.timings.queue.max(end.timings.queue);
        self.timings.prefill = self.timings.prefill.max(end.timings.prefill);
        self.timings.decode = self.timings.decode.max(end.timings.decode);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt, StreamExt};
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::super::answer::plain;
    use super::super::output::OutputStream;
    use super::*;
    use crate::engine::{EngineError, Event, EventStream, FinishReason, Timings, Usage};

    fn delta(text: &str) -> Event {
        Event::Delta {
            text: text.into(),
            tokens: vec![1],
            logprobs: Vec::new(),
        }
    }

    fn finished(completion_tokens: u32, seconds: u64) -> Event {
        Event::Finished {
            reason: FinishReason::Length,
            usage: Usage {
                prompt_tokens: 5,
                completion_tokens,
                cached_tokens: 2,
                ..Usage::default()
            },
            timings: Timings {
                decode: Duration::from_secs(seconds),
                ..Timings::default()
            },
        }
    }

    fn choices(count: usize) -> (Vec<UnboundedSender<Event>>, Choices) {
        let (senders, streams) = (0..count)
            .map(|_| {
                let (sender, receiver) = unbounded_channel();
                (sender, plain(EventStream::new(receiver)))
            })
            .unzip();
        (senders, Choices::new(streams, 1))
    }

    #[test]
    fn choices_are_told_apart_and_summed_up() {
        let (senders, choices) = choices(2);
        senders[1].send(delta("b")).unwrap();
        senders[0].send(delta("a")).unwrap();
        senders[1].send(finished(1, 3)).unwrap();
        senders[0].send(delta("a")).unwrap();
        senders[0].send(finished(2, 2)).unwrap();
        let completion = OutputStream::new(choices).collect().now_or_never().unwrap().unwrap();
        let texts: Vec<&str> = completion.choices.iter().map(|choice| &*choice.content).collect();
        assert_eq!(texts, ["aa", "b"]);
        let usage = completion.totals.usage;
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
            (10, 3, 4)
        );
        assert_eq!(completion.totals.timings.decode, Duration::from_secs(3));
    }

    #[test]
    fn a_busy_choice_does_not_starve_the_others() {
        let (senders, mut choices) = choices(2);
        for _ in 0..10 {
            senders[0].send(delta("a")).unwrap();
            senders[1].send(delta("b")).unwrap();
        }
        let mut order = String::new();
        while let Some(Some(Ok(output))) = choices.next().now_or_never() {
            if let Piece::Content { text, .. } = output.piece {
                order += &text;
            }
        }
        assert_eq!(order, "ab".repeat(10));
    }

    #[test]
    fn one_failure_ends_all() {
        let (senders, mut choices) = choices(2);
        senders[1].send(Event::Failed(EngineError::ShuttingDown)).unwrap();
        let failed = choices.next().now_or_never().unwrap();
        assert_eq!(failed, Some(Err(GenerationError::Engine(EngineError::ShuttingDown))));
        assert!(senders[0].is_closed());
        assert_eq!(choices.next().now_or_never(), Some(None));
        // An engine that vanishes is told, too.
        let (senders, mut choices) = self::choices(1);
        drop(senders);
        assert_eq!(
            choices.next().now_or_never().unwrap(),
            Some(Err(GenerationError::Unfinished))
        );
    }
}
