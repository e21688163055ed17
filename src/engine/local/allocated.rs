//! What llama.cpp allocates: its safe interface does not tell, but its log does.

use crate::engine::Buffers;
use crate::llama::log::Listener;
use crate::memory::{Kind, Tier};

/// The buffers that llama.cpp reported since the last call. `mapped` tells whether weights are mapped.
pub(super) fn buffers(log: &Listener, mapped: bool) -> Vec<Buffers> {
    let lines = log.take_buffers();
    lines.iter().filter_map(|line| parse(line, mapped)).collect()
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
