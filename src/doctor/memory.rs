//! Main memory: how much, how fast, and what the system does with it.

use super::facts::{Facts, MemoryFacts};
use super::finding::Finding;
use crate::memory::bytes;
use crate::plan::RAM_BANDWIDTH;

const GB: f64 = 1e9;
/// Below this a single channel is likely, or memory that runs far below its rate.
const SLOW: f64 = 20.0 * GB;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let memory = &facts.memory;
    let unified = facts.gpu.found.iter().any(|gpu| gpu.unified);
    let mut findings = vec![amount(memory)];
    findings.extend(bandwidth(memory));
    findings.extend(huge_pages(memory));
    findings.extend(swap(memory, unified));
    findings.extend(locking(memory));
    findings
}

fn amount(memory: &MemoryFacts) -> Finding {
    match memory.limit.filter(|limit| *limit < memory.total) {
        None => Finding::ok("memory", format!("{}, {} available", bytes(memory.total), bytes(memory.available))),
        Some(limit) => Finding::note(
            "memory",
            format!("{}, of which this container may take {}", bytes(memory.total), bytes(limit)),
        )
        .why("hearth plans for the smaller number; the system ends who takes more, and counts mapped files that are being read")
        .change("raise the container's limit (`docker run --memory`, Kubernetes `resources.limits.memory`) if more is meant"),
    }
}

fn bandwidth(memory: &MemoryFacts) -> Option<Finding> {
    let rate = memory.bandwidth?;
    let what = format!("{:.0} GB/s read by all cores together (measured)", rate / GB);
    let plan = RAM_BANDWIDTH / GB;
    if rate >= SLOW {
        let as_planned = RAM_BANDWIDTH * 0.7..=RAM_BANDWIDTH * 1.4;
        let beside = if !as_planned.contains(&rate) {
            format!(
                "; estimates of `hearth plan` assume {plan:.0} GB/s, so weights in main memory decode at about {:.1} times what it says",
                rate / RAM_BANDWIDTH
            )
        } else {
            String::new()
        };
        return Some(Finding::ok("memory speed", what + &beside));
    }
    Some(
        Finding::note("memory speed", what)
            .why(format!(
                "every token reads the weights in main memory, so decoding is as fast as that; dual-channel DDR5 reaches {plan:.0} GB/s"
            ))
            .change("look whether both channels have a module, and whether the memory's profile (XMP, EXPO) is on; virtual machines get what is left"),
    )
}

fn huge_pages(memory: &MemoryFacts) -> Vec<Finding> {
    let Some(pages) = &memory.huge_pages else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if let Some(mode) = &pages.transparent {
        let what = format!("transparent huge pages: {mode}");
        findings.push(if mode == "always" {
            Finding::ok("huge pages", what)
        } else {
            Finding::note("huge pages", what)
                .why("caches of keys and values, and weights that are read instead of mapped, lie in ordinary memory, where large pages save a few percent")
                .change("echo always > /sys/kernel/mm/transparent_hugepage/enabled")
        });
    }
    if pages.reserved > 0 {
        let what = format!("{} are set aside for explicit huge pages", bytes(pages.reserved));
        let why = "hearth does not use them, and nobody else can use that memory";
        let change = "sysctl vm.nr_hugepages=0, unless another program needs them";
        let finding = if pages.reserved > memory.total / 10 {
            Finding::problem("huge pages", what)
        } else {
            Finding::note("huge pages", what)
        };
        findings.push(finding.why(why).change(change));
    }
    findings
}

fn swap(memory: &MemoryFacts, unified: bool) -> Option<Finding> {
    if memory.swap_total == 0 {
        return Some(Finding::ok("swap", "none: what does not fit fails at once"));
    }
    let swappiness = memory
        .swappiness
        .map_or_else(String::new, |value| format!(", swappiness {value}"));
    let what = format!(
        "{} of {} used{swappiness}",
        bytes(memory.swap_used),
        bytes(memory.swap_total)
    );
    if unified {
        return Some(
            Finding::problem("swap", what)
                .why("with unified memory a model that is too large makes the machine swap until it no longer answers, where it would fail without")
                .change("swapoff -a, and remove swap from /etc/fstab"),
        );
    }
    let busy = memory.swap_used > memory.total / 20;
    let eager = memory.swappiness.is_some_and(|value| value > 10);
    if !busy && !eager {
        return Some(Finding::ok("swap", what));
    }
    Some(
        Finding::note("swap", what)
            .why("caches of keys and values that were swapped out stop every stream until they are back")
            .change(if eager {
                "sysctl vm.swappiness=1"
            } else {
                "see what takes the memory; `hearth plan` shows hearth's share"
            }),
    )
}

fn locking(memory: &MemoryFacts) -> Option<Finding> {
    let limit = memory.lock_limit?.map_or_else(|| "without limit".to_owned(), bytes);
    Some(Finding::ok(
        "locked memory",
        format!("{limit}; hearth locks nothing, so it does not matter"),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::facts::HugePages;
    use super::super::finding::Status;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn memory() -> MemoryFacts {
        MemoryFacts {
            total: 64 * GIB,
            available: 60 * GIB,
            ..MemoryFacts::default()
        }
    }

    #[test]
    fn limits_of_containers_are_told() {
        assert_eq!(amount(&memory()).status, Status::Ok);
        let limit = |limit| {
            amount(&MemoryFacts {
                limit: Some(limit),
                ..memory()
            })
        };
        assert_eq!(limit(8 * GIB).status, Status::Note);
        assert_eq!(limit(100 * GIB).status, Status::Ok);
    }

    #[test]
    fn slow_memory_is_noted_and_other_speeds_are_put_beside_the_plans() {
        let speed = |rate: f64| {
            let bandwidth = Some(rate * GB);
            super::bandwidth(&MemoryFacts { bandwidth, ..memory() }).unwrap()
        };
        assert_eq!(speed(12.0).status, Status::Note);
        assert!(speed(31.0).what.contains("about 0.5 times"));
        assert!(!speed(60.0).what.contains("times"));
        assert!(speed(248.0).what.contains("about 4.0 times"));
        assert_eq!(super::bandwidth(&memory()), None);
    }

    #[test]
    fn huge_pages_that_nobody_uses_are_lost() {
        let pages = |transparent: &str, reserved| {
            let huge_pages = Some(HugePages {
                transparent: Some(transparent.into()),
                reserved,
            });
            let found = super::huge_pages(&MemoryFacts { huge_pages, ..memory() });
            found.into_iter().map(|finding| finding.status).collect::<Vec<_>>()
        };
        assert_eq!(pages("always", 0), [Status::Ok]);
        assert_eq!(pages("madvise", GIB), [Status::Note, Status::Note]);
        assert_eq!(pages("never", 32 * GIB), [Status::Note, Status::Problem]);
    }

    #[test]
    fn swap_is_judged_by_what_it_would_do() {
        let swap = |used, swappiness, unified| {
            let memory = MemoryFacts {
                swap_total: 8 * GIB,
                swap_used: used,
                swappiness: Some(swappiness),
                ..memory()
            };
            super::swap(&memory, unified).unwrap().status
        };
        assert_eq!(swap(0, 1, false), Status::Ok);
        assert_eq!(swap(0, 60, false), Status::Note);
        assert_eq!(swap(6 * GIB, 1, false), Status::Note);
        assert_eq!(swap(0, 1, true), Status::Problem);
        assert_eq!(super::swap(&memory(), true).unwrap().status, Status::Ok);
    }
}
