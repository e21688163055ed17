//! What each slot does, to be read from any thread.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::engine::{SlotRequest, SlotState};

/// Written by the engine thread. Readers may see numbers of different moments together: they are for people.
#[derive(Debug, Default)]
pub(super) struct SlotGauge {
    busy: AtomicBool,
    /// Tokens that the slot holds.
    tokens: AtomicU32,
    /// Requests that the engine has taken up to this one, 0 before the first.
    number: AtomicU32,
    prompt: AtomicU32,
    cached: AtomicU32,
    /// Prompt tokens that are there, cached ones included.
    processed: AtomicU32,
    generated: AtomicU32,
    max_tokens: AtomicU32,
}

impl SlotGauge {
    pub(super) fn begin(&self, number: u32, prompt: u32, cached: u32, max_tokens: u32) {
        self.number.store(number, Ordering::Relaxed);
        self.prompt.store(prompt, Ordering::Relaxed);
        self.cached.store(cached, Ordering::Relaxed);
        self.processed.store(cached, Ordering::Relaxed);
        self.generated.store(0, Ordering::Relaxed);
        self.max_tokens.store(max_tokens, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
    }

    pub(super) fn processed(&self, tokens: u32) {
        self.processed.store(tokens, Ordering::Relaxed);
    }

    pub(super) fn generated(&self, tokens: u32) {
        self.generated.store(tokens, Ordering::Relaxed);
    }

    pub(super) fn holds(&self, tokens: u32) {
        self.tokens.store(tokens, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> SlotState {
        let read = |number: &AtomicU32| number.load(Ordering::Relaxed);
        let number = read(&self.number);
        SlotState {
            busy: self.busy.load(Ordering::Relaxed),
            tokens: read(&self.tokens),
            last: (number > 0).then(|| SlotRequest {
                number,
                prompt_tokens: read(&self.prompt),
                cached_tokens: read(&self.cached),
                processed_tokens: read(&self.processed),
                generated_tokens: read(&self.generated),
                max_tokens: read(&self.max_tokens),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_told_with_its_last_request() {
        let gauge = SlotGauge::default();
        assert_eq!(gauge.read(), SlotState::default());
        gauge.begin(3, 10, 4, 7);
        gauge.processed(9);
        gauge.generated(2);
        gauge.holds(11);
        let expect = SlotState {
            busy: true,
            tokens: 11,
            last: Some(SlotRequest {
                number: 3,
                prompt_tokens: 10,
                cached_tokens: 4,
                processed_tokens: 9,
                generated_tokens: 2,
                max_tokens: 7,
            }),
        };
        assert_eq!(gauge.read(), expect);
        gauge.end();
        assert_eq!(gauge.read(), SlotState { busy: false, ..expect });
    }
}
