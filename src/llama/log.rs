//! What llama.cpp logs while it works for a thread: its interface returns hardly more than "no", its log says why, and
//! how large the buffers are that it allocates.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};

/// Error lines that are kept: the last ones say what went wrong.
const MAX_ERRORS: usize = 3;

/// Hears llama.cpp's log lines on the thread that made it, until it is dropped there. They are logged as ever.
pub struct Listener {
    heard: Arc<Mutex<Heard>>,
    _guard: DefaultGuard,
}

#[derive(Default)]
struct Heard {
    errors: VecDeque<String>,
    buffers: Vec<String>,
}

impl Listener {
    /// Starts to listen on this thread.
    #[must_use]
    pub fn start() -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let subscriber = Listening {
            next: dispatcher::get_default(Dispatch::clone),
            heard: heard.clone(),
        };
        Self {
            heard,
            _guard: dispatcher::set_default(&Dispatch::new(subscriber)),
        }
    }

    /// The lines about sizes of buffers since the last call.
    #[must_use]
    pub fn take_buffers(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().buffers)
    }

    /// The last error lines since the last call, as one text; `None` without any.
    #[must_use]
    pub fn take_errors(&self) -> Option<String> {
        let errors = std::mem::take(&mut self.heard.lock().errors);
        (!errors.is_empty()).then(|| Vec::from(errors).join("; "))
    }

    /// What an error of the crate means, in llama.cpp's own words where it said anything.
    #[must_use]
    pub fn explain(&self, error: &dyn fmt::Display) -> String {
        self.take_errors().unwrap_or_else(|| error.to_string())
    }
}

/// Reads llama.cpp's lines and passes on everything.
struct Listening {
    next: Dispatch,
    heard: Arc<Mutex<Heard>>,
}

impl Subscriber for Listening {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_llama(metadata) || self.next.enabled(metadata)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.next.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.next.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.next.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        if is_llama(metadata) {
            event.record(&mut Line {
                heard: &self.heard,
                level: *metadata.level(),
            });
        }
        if self.next.enabled(metadata) {
            self.next.event(event);
        }
    }

    fn enter(&self, span: &Id) {
        self.next.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.next.exit(span);
    }
}

fn is_llama(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("llama-cpp-2")
}

struct Line<'h> {
    heard: &'h Mutex<Heard>,
    level: Level,
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            return;
        }
        let line = value.trim();
        if line.contains(" buffer size =") {
            self.heard.lock().buffers.push(line.to_owned());
        } else if self.level == Level::ERROR && !line.is_empty() {
            let errors = &mut self.heard.lock().errors;
            if errors.len() == MAX_ERRORS {
                errors.pop_front();
            }
            errors.push_back(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_errors_and_sizes_of_llama_only() {
        let listener = Listener::start();
        assert_eq!(listener.take_errors(), None);
        for number in 0..5 {
            tracing::error!(target: "llama-cpp-2", "error {number}\n");
        }
        tracing::error!("our own");
        tracing::warn!(target: "llama-cpp-2", "a warning");
        tracing::info!(target: "llama-cpp-2", "  CPU KV buffer size =  1.00 MiB");
        assert_eq!(listener.explain(&"null"), "error 2; error 3; error 4");
        assert_eq!(listener.explain(&"null"), "null");
        assert_eq!(listener.take_buffers(), ["CPU KV buffer size =  1.00 MiB"]);
    }
}
