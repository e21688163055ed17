//! What llama.cpp allocates: its safe interface does not tell, but its log does.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber, dispatcher};

use crate::engine::Buffers;
use crate::memory::{Kind, Tier};

/// Runs `load` and returns with its result the buffers that llama.cpp reported on this thread meanwhile.
pub(super) fn watch<T>(mapped: bool, load: impl FnOnce() -> T) -> (T, Vec<Buffers>) {
    let found = Arc::new(Mutex::new(Vec::new()));
    let watcher = Watcher {
        next: dispatcher::get_default(Dispatch::clone),
        found: found.clone(),
        mapped,
    };
    let result = dispatcher::with_default(&Dispatch::new(watcher), load);
    let found = std::mem::take(&mut *found.lock());
    (result, found)
}

/// Reads llama.cpp's lines and passes on everything.
struct Watcher {
    next: Dispatch,
    found: Arc<Mutex<Vec<Buffers>>>,
    mapped: bool,
}

impl Subscriber for Watcher {
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
        if is_llama(event.metadata()) {
            event.record(&mut Lines(self));
        }
        if self.next.enabled(event.metadata()) {
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

struct Lines<'w>(&'w Watcher);

impl Visit for Lines<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message"
            && let Some(buffers) = parse(value, self.0.mapped)
        {
            self.0.found.lock().push(buffers);
        }
    }
}

/// Reads a line such as `CUDA0 KV buffer size =   384.00 MiB`, perhaps behind the name of a function.
fn parse(line: &str, mapped: bool) -> Option<Buffers> {
    let (what, size) = line.split_once(" buffer size =")?;
    let what = what.rsplit(": ").next()?.trim();
    let (device, what) = what.split_once(' ')?;
    let mebibytes: f64 = size.trim().strip_suffix("MiB")?.trim().parse().ok()?;
    let ours = device == "Hearth_Host";
    let kind = match what.trim() {
        "model" if ours => Kind::Experts,
        "model" => Kind::Weights,
        "KV" => Kind::Kv,
        "RS" => Kind::Recurrent,
        "compute" | "output" => Kind::Compute,
        _ => return None,
    };
    let host = device.starts_with("CPU") || device.ends_with("_Host");
    // Repacked weights replace those in the map.
    let repacked = device.starts_with("CPU_") && device != "CPU_Mapped";
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
    let bytes = (mebibytes * 1024.0 * 1024.0) as u64;
    Some(Buffers {
        device: device.to_owned(),
        kind,
        tier: if host { Tier::Ram } else { Tier::Gpu },
        bytes,
        mapped: matches!(kind, Kind::Weights | Kind::Experts) && host && (mapped || repacked),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_llama_cpp() {
        let read = |line: &str| parse(line, true).map(|b| (b.device, b.kind, b.tier, b.bytes, b.mapped));
        let mib = 1 << 20;
        assert_eq!(
            read("load_tensors:   CPU_Mapped model buffer size =     7.50 MiB\n"),
            Some(("CPU_Mapped".into(), Kind::Weights, Tier::Ram, 15 * mib / 2, true))
        );
        assert_eq!(
            read("     CUDA0 KV buffer size =   384.00 MiB"),
            Some(("CUDA0".into(), Kind::Kv, Tier::Gpu, 384 * mib, false))
        );
        assert_eq!(
            read("llama_context:  CUDA_Host  output buffer size =     2.00 MiB"),
            Some(("CUDA_Host".into(), Kind::Compute, Tier::Ram, 2 * mib, false))
        );
        assert_eq!(read("CPU LoRA buffer size = 1.00 MiB"), None);
        assert_eq!(read("offloading 48 repeating layers to GPU"), None);
    }
}
