//! GPUs: what llama.cpp found, why it may have found nothing, and the traps of unified memory.

use super::facts::{Facts, GpuFacts};
use super::finding::Finding;
use crate::memory::bytes;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let gpu = &facts.gpu;
    let mut findings: Vec<Finding> = gpu
        .found
        .iter()
        .map(|found| {
            let memory = if found.unified {
                "shared with the processor"
            } else {
                "of its own"
            };
            let what = format!(
                "{} with {} {memory}, {} free",
                found.name,
                bytes(found.total),
                bytes(found.free)
            );
            let backend = if found.backend.is_empty() {
                String::new()
            } else {
                format!(" ({})", found.backend)
            };
            Finding::ok("GPU", what + &backend)
        })
        .collect();
    if gpu.found.len() > 1 {
        findings.push(
            Finding::note("GPU", format!("{} were found", gpu.found.len()))
                .why("hearth does not spread a model over several: it takes the one with the most free memory")
                .change("choose one with CUDA_VISIBLE_DEVICES or GGML_VK_VISIBLE_DEVICES; start a second hearth for the other"),
        );
    }
    if gpu.found.is_empty() {
        findings.push(missing(gpu));
    }
    findings.extend(unified(facts));
    findings
}

/// Why no GPU was found.
fn missing(gpu: &GpuFacts) -> Finding {
    let has = |backend| gpu.dynamic || gpu.built.contains(&backend);
    let built = if gpu.built.is_empty() {
        "none".to_owned()
    } else {
        gpu.built.join(", ")
    };
    if gpu.on_bus.contains(&"NVIDIA") || gpu.nvidia_driver.is_some() {
        let what = "an NVIDIA GPU is there, but not used";
        if !has("cuda") && !has("vulkan") {
            return Finding::problem("GPU", what)
                .why(format!(
                    "this hearth was built without support for it (backends: {built})"
                ))
                .change("HEARTH_FEATURES=cuda scripts/serve, with the CUDA toolkit installed");
        }
        let Some(version) = &gpu.nvidia_driver else {
            return Finding::problem("GPU", what)
                .why("its kernel driver is not loaded")
                .change("install NVIDIA's driver (Debian: nvidia-driver) and restart; `nvidia-smi` must list the GPU");
        };
        if !gpu.nvidia_nodes {
            return Finding::problem("GPU", what)
                .why(format!(
                    "driver {version} is loaded, but this process cannot open /dev/nvidia0"
                ))
                .change("in a container: docker run --gpus all; as a service: allow the devices");
        }
        return Finding::problem("GPU", what)
            .why(format!("driver {version} is loaded, but llama.cpp found no device"))
            .change("the driver may be older than the CUDA toolkit of the build; HEARTH_LOG=llama-cpp-2=debug shows what llama.cpp says");
    }
    if gpu.on_bus.contains(&"AMD") {
        let finding = Finding::problem("GPU", "an AMD GPU is there, but not used");
        return if has("vulkan") {
            finding
                .why("no Vulkan driver offers it")
                .change("install one (Debian: mesa-vulkan-drivers) and let the user into the group render; `vulkaninfo --summary` must list the GPU")
        } else {
            finding
                .why(format!(
                    "this hearth was built without support for it (backends: {built})"
                ))
                .change("HEARTH_FEATURES=vulkan scripts/serve")
        };
    }
    let what = "none: models are computed on the CPU";
    if gpu.on_bus.contains(&"Intel") {
        return Finding::note("GPU", format!("{what}, although there is one by Intel"))
            .why("most of these are part of the processor, and as fast as its memory")
            .change("HEARTH_FEATURES=vulkan scripts/serve, to try it");
    }
    Finding::ok("GPU", what)
}

/// The traps of machines on which GPU and CPU have one memory, such as those with GB10.
fn unified(facts: &Facts) -> Vec<Finding> {
    let gpu = &facts.gpu;
    let known = |text: &str| ["GB10", "DGX Spark"].iter().any(|name| text.contains(name));
    let gb10 = gpu.product.as_deref().is_some_and(known) || gpu.found.iter().any(|found| known(&found.name));
    let shared = gpu.found.iter().any(|found| found.unified);
    if !gb10 && !shared {
        return Vec::new();
    }
    let name = if gb10 { "GB10" } else { "the GPU" };
    let mut findings = vec![Finding::ok(
        "unified memory",
        format!(
            "{name} shares main memory: hearth reads weights instead of mapping them, which would be slow and hold them twice; no setting is needed"
        ),
    )];
    // What CUDA calls free leaves out what the system would give back.
    let memory = &facts.memory;
    if memory.cached > memory.total / 5 {
        findings.push(
            Finding::note(
                "unified memory",
                format!("{} hold files that were read before", bytes(memory.cached)),
            )
            .why("CUDA does not count them as free, although the system gives them back, so a large model may be refused")
            .change("sync; echo 3 > /proc/sys/vm/drop_caches, before a large model is loaded"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::facts::MemoryFacts;
    use super::super::finding::Status;
    use super::*;
    use crate::host::Gpu;

    const GIB: u64 = 1 << 30;

    fn found(name: &str, unified: bool) -> Gpu {
        Gpu {
            name: name.into(),
            total: 24 * GIB,
            free: 23 * GIB,
            unified,
            backend: "CUDA".into(),
            id: None,
        }
    }

    #[test]
    fn each_reason_for_no_gpu_has_its_remedy() {
        let nvidia = GpuFacts {
            on_bus: vec!["NVIDIA"],
            ..GpuFacts::default()
        };
        let change = |facts: GpuFacts| missing(&facts).change.unwrap();
        assert!(change(nvidia.clone()).contains("HEARTH_FEATURES=cuda"));
        let built = GpuFacts {
            built: vec!["cuda"],
            ..nvidia
        };
        assert!(change(built.clone()).contains("nvidia-smi"));
        let driver = GpuFacts {
            nvidia_driver: Some("580.1".into()),
            ..built
        };
        assert!(change(driver.clone()).contains("--gpus all"));
        let nodes = GpuFacts {
            nvidia_nodes: true,
            ..driver
        };
        assert!(change(nodes).contains("older than the CUDA toolkit"));
        let amd = GpuFacts {
            on_bus: vec!["AMD"],
            ..GpuFacts::default()
        };
        assert!(change(amd).contains("vulkan scripts/serve"));
        assert_eq!(missing(&GpuFacts::default()).status, Status::Ok);
    }

    #[test]
    fn unified_memory_has_traps_of_its_own() {
        let facts = |gpu: Gpu, cached| Facts {
            gpu: GpuFacts {
                found: vec![gpu],
                ..GpuFacts::default()
            },
            memory: MemoryFacts {
                total: 128 * GIB,
                cached,
                ..MemoryFacts::default()
            },
            ..Facts::default()
        };
        assert!(unified(&facts(found("RTX 4090", false), 100 * GIB)).is_empty());
        assert_eq!(unified(&facts(found("NVIDIA GB10", true), 0)).len(), 1);
        let cached = unified(&facts(found("NVIDIA GB10", true), 100 * GIB));
        assert!(cached[1].change.as_ref().unwrap().contains("drop_caches"));
    }

    #[test]
    fn several_gpus_are_noted() {
        let facts = Facts {
            gpu: GpuFacts {
                found: vec![found("A", false), found("B", false)],
                ..GpuFacts::default()
            },
            ..Facts::default()
        };
        let findings = judge(&facts);
        assert_eq!(findings.len(), 3);
        assert_eq!(findings[2].status, Status::Note);
    }
}
