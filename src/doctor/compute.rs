//! Cores, and what llama.cpp makes of them.

use super::facts::{Cpu, Facts};
use super::finding::Finding;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let cpu = &facts.cpu;
    let mut findings = vec![cores(cpu)];
    findings.extend(quota(cpu));
    findings.extend(load(cpu));
    findings.extend(configured(cpu));
    findings.push(features(cpu));
    findings.extend(scaling(cpu));
    findings.extend(numa(cpu));
    findings
}

fn cores(cpu: &Cpu) -> Finding {
    let smt = if cpu.threads > cpu.cores {
        format!(
            " with {} hardware threads; models take one thread per core, since two on a core share its vector units",
            cpu.threads
        )
    } else {
        String::new()
    };
    let name = if cpu.name.is_empty() { "processor" } else { &cpu.name };
    let noun = if cpu.cores == 1 { "core" } else { "cores" };
    Finding::ok("cores", format!("{name}: {} {noun}{smt}", cpu.cores))
}

fn quota(cpu: &Cpu) -> Option<Finding> {
    let quota = cpu.quota?;
    if quota + 0.01 >= f64::from(cpu.cores) {
        return Some(Finding::ok(
            "container",
            format!("may use {quota:.1} cores, as many as it sees"),
        ));
    }
    Some(
        Finding::problem("container", format!("may use {quota:.1} cores, but sees {}", cpu.cores))
            .why("threads beyond the quota make all of them wait for each other, which costs far more than their share")
            .change(format!(
                "set `threads = {:.0}` for each model, or give the container whole cores (cpuset, `docker run --cpuset-cpus`)",
                quota.floor().max(1.0)
            )),
    )
}

fn load(cpu: &Cpu) -> Option<Finding> {
    let load = cpu.load.filter(|load| *load > f64::from(cpu.cores) * 0.5)?;
    Some(
        Finding::note(
            "load",
            format!(
                "{load:.1} threads wanted one of {} cores over the last minute",
                cpu.cores
            ),
        )
        .why("models compute slower beside other programs, and what is measured here is lower than it could be")
        .change("look again when nothing else computes; `top` shows who does"),
    )
}

fn configured(cpu: &Cpu) -> Option<Finding> {
    let over: Vec<String> = cpu
        .configured_threads
        .iter()
        .filter(|(_, threads)| *threads > cpu.cores)
        .map(|(name, threads)| format!("{name} has {threads}"))
        .collect();
    if over.is_empty() {
        return None;
    }
    Some(
        Finding::problem("threads", format!("{} on {} cores", over.join(", "), cpu.cores))
            .why("more threads than cores make decoding slower, often by half")
            .change("leave `threads` out: hearth takes one per core"),
    )
}

fn features(cpu: &Cpu) -> Finding {
    if cpu.unused.is_empty() {
        return Finding::ok(
            "instructions",
            match cpu.used.is_empty() {
                true => "llama.cpp uses what the processor has".to_owned(),
                false => format!(
                    "llama.cpp uses all that the processor has for it: {}",
                    cpu.used.join(" ")
                ),
            },
        );
    }
    Finding::problem(
        "instructions",
        format!("llama.cpp was built without {}", cpu.unused.join(" ")),
    )
    .why("the processor has them, and models compute slower without")
    .change("build on this machine: scripts/serve does (docs/building.md)")
}

fn scaling(cpu: &Cpu) -> Option<Finding> {
    let scaling = cpu.scaling.as_ref()?;
    let what = format!("governor {} ({})", scaling.governor, scaling.driver);
    // With these drivers `powersave` is the normal one, and goes up to the full clock.
    let own = ["intel_pstate", "amd-pstate-epp"].contains(&scaling.driver.as_str());
    if scaling.governor != "powersave" || own {
        return Some(Finding::ok("clock speed", what));
    }
    Some(
        Finding::note("clock speed", what)
            .why("this governor keeps the processor at its lowest clock")
            .change("cpupower frequency-set -g performance"),
    )
}

fn numa(cpu: &Cpu) -> Option<Finding> {
    (cpu.numa_nodes > 1).then(|| {
        Finding::note("NUMA", format!("{} nodes", cpu.numa_nodes))
            .why("a core reads the memory of another node more slowly")
            .change("for a model that fits into one node: numactl --cpunodebind=0 --membind=0 hearth serve; for one that does not: numactl --interleave=all")
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    fn status(finding: Option<Finding>) -> Option<Status> {
        finding.map(|finding| finding.status)
    }

    fn cpu() -> Cpu {
        Cpu {
            cores: 8,
            threads: 16,
            ..Cpu::default()
        }
    }

    #[test]
    fn smt_is_told_and_too_many_threads_are_a_problem() {
        assert!(cores(&cpu()).what.contains("8 cores with 16 hardware threads"));
        let configured = |threads| {
            configured(&Cpu {
                configured_threads: vec![("m".into(), threads)],
                ..cpu()
            })
        };
        assert_eq!(status(configured(8)), None);
        assert_eq!(status(configured(16)), Some(Status::Problem));
    }

    #[test]
    fn busy_machines_are_noted() {
        let load = |load| {
            status(super::load(&Cpu {
                load: Some(load),
                ..cpu()
            }))
        };
        assert_eq!(load(1.0), None);
        assert_eq!(load(7.5), Some(Status::Note));
    }

    #[test]
    fn a_quota_below_the_cores_is_a_problem() {
        let quota = |quota| quota_of(Some(quota));
        fn quota_of(quota: Option<f64>) -> Option<Finding> {
            super::quota(&Cpu { quota, ..cpu() })
        }
        assert_eq!(status(quota(8.0)), Some(Status::Ok));
        let finding = quota(2.5).unwrap();
        assert_eq!(finding.status, Status::Problem);
        assert!(finding.change.unwrap().contains("threads = 2"));
        assert_eq!(quota_of(None), None);
    }

    #[test]
    fn builds_for_less_and_low_clocks_are_found() {
        assert_eq!(features(&cpu()).status, Status::Ok);
        let unused = vec!["AVX2".to_owned()];
        assert_eq!(features(&Cpu { unused, ..cpu() }).status, Status::Problem);
        let scaling = |driver: &str, governor: &str| {
            let scaling = Some(super::super::facts::Scaling {
                driver: driver.into(),
                governor: governor.into(),
            });
            status(super::scaling(&Cpu { scaling, ..cpu() }))
        };
        assert_eq!(scaling("acpi-cpufreq", "powersave"), Some(Status::Note));
        assert_eq!(scaling("intel_pstate", "powersave"), Some(Status::Ok));
        assert_eq!(scaling("acpi-cpufreq", "schedutil"), Some(Status::Ok));
    }
}
