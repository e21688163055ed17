//! Disks: how fast models load, and whether there is space for what hearth writes.

use super::facts::{Facts, FolderFacts, ModelFile};
use super::finding::Finding;
use crate::memory::bytes;

/// Bytes per second below which loading takes minutes, and tokens wait for experts that were pushed out of memory.
const SLOW: f64 = 500e6;
/// Free space below which something will soon fail.
const LITTLE: u64 = 1 << 30;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.models.iter().filter_map(file).collect();
    if findings.is_empty() {
        findings.extend(facts.disk_speed.map(disk));
    }
    findings.extend(facts.folders.iter().map(folder));
    findings.extend(crowded(facts));
    findings
}

fn rate(speed: f64) -> String {
    if speed >= 1e9 {
        format!("{:.1} GB/s", speed / 1e9)
    } else {
        format!("{:.0} MB/s", speed / 1e6)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate of two digits")]
fn file(model: &ModelFile) -> Option<Finding> {
    let speed = model.speed.filter(|speed| *speed > 0.0)?;
    let seconds = model.bytes as f64 / speed;
    let time = if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    };
    let what = format!(
        "{}: {} at {} (measured), so it loads in about {time}",
        model.name,
        bytes(model.bytes),
        rate(speed)
    );
    if speed >= SLOW || seconds < 30.0 {
        return Some(Finding::ok("disk", what));
    }
    Some(
        Finding::note("disk", what)
            .why("the first start takes that long, and so does every token whose experts the system has dropped from memory")
            .change(format!("move {} to an NVMe disk", model.path.display())),
    )
}

fn disk(speed: f64) -> Finding {
    let what = format!("{} (measured with a file of its own)", rate(speed));
    if speed >= SLOW {
        return Finding::ok("disk", what);
    }
    Finding::note("disk", what)
        .why("a model of 48 GiB would load for minutes")
        .change("keep models on an NVMe disk: HEARTH_MODELS or `path` in models.toml")
}

fn folder(folder: &FolderFacts) -> Finding {
    let FolderFacts { what, path, .. } = folder;
    let place = path.display();
    if !folder.writable {
        return Finding::problem("folders", format!("{what}: {place} cannot be written"))
            .why("hearth works without, but forgets which experts are hot, and cannot fetch models")
            .change("let hearth's user write there, or name another folder: HEARTH_CACHE, HEARTH_MODELS");
    }
    match folder.free {
        Some(free) if free < LITTLE => Finding::problem("folders", format!("{what}: {} free in {place}", bytes(free)))
            .why("a full disk ends what is being written")
            .change("free some space, or name another folder: HEARTH_CACHE, HEARTH_MODELS"),
        Some(free) => Finding::ok("folders", format!("{what}: {} free in {place}", bytes(free))),
        None => Finding::ok("folders", format!("{what}: {place}")),
    }
}

/// Mapped files that do not fit into memory are read again and again.
fn crowded(facts: &Facts) -> Option<Finding> {
    let files: u64 = facts.models.iter().map(|model| model.bytes).sum();
    let vram: u64 = facts
        .gpu
        .found
        .iter()
        .filter(|gpu| !gpu.unified)
        .map(|gpu| gpu.total)
        .max()
        .unwrap_or(0);
    let total = facts.memory.limit.unwrap_or(u64::MAX).min(facts.memory.total);
    if total == 0 || files <= total.saturating_add(vram) {
        return None;
    }
    Some(
        Finding::problem(
            "models",
            format!("{} of models for {} of memory", bytes(files), bytes(total + vram)),
        )
        .why("weights would be read from the disk for every token")
        .change("`hearth advise --gguf FILE` shows which quantization fits"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::facts::MemoryFacts;
    use super::super::finding::Status;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn model(speed: f64) -> ModelFile {
        ModelFile {
            name: "m".into(),
            path: "/m.gguf".into(),
            bytes: 48 * GIB,
            speed: Some(speed),
        }
    }

    #[test]
    fn slow_disks_matter_for_large_files() {
        assert_eq!(file(&model(3e9)).unwrap().status, Status::Ok);
        assert_eq!(file(&model(150e6)).unwrap().status, Status::Note);
        let small = ModelFile {
            bytes: GIB,
            ..model(150e6)
        };
        assert_eq!(file(&small).unwrap().status, Status::Ok);
        assert!(file(&model(150e6)).unwrap().what.contains("6 min"));
        assert_eq!(disk(100e6).status, Status::Note);
    }

    #[test]
    fn folders_must_be_writable_and_have_space() {
        let folder = |free, writable| {
            folder(&FolderFacts {
                what: "cache",
                path: "/c".into(),
                free,
                writable,
            })
            .status
        };
        assert_eq!(folder(Some(100 * GIB), true), Status::Ok);
        assert_eq!(folder(None, true), Status::Ok);
        assert_eq!(folder(Some(1), true), Status::Problem);
        assert_eq!(folder(Some(100 * GIB), false), Status::Problem);
    }

    #[test]
    fn models_beyond_all_memory_are_a_problem() {
        let facts = |total| Facts {
            models: vec![model(1e9)],
            memory: MemoryFacts {
                total,
                ..MemoryFacts::default()
            },
            ..Facts::default()
        };
        assert!(crowded(&facts(64 * GIB)).is_none());
        assert_eq!(crowded(&facts(32 * GIB)).unwrap().status, Status::Problem);
    }
}
