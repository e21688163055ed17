//! Decisions on machines that are only described, for models of which there is only a header.

use std::sync::OnceLock;

use super::*;
use crate::config::{CacheDevice, CacheSize, ExpertPlacement, ExpertsConfig, MemoryConfig, MemoryLimit};
use crate::gguf::Gguf;
use crate::host::{Described, Gpu, Machine};
use crate::memory::{Kind, KvType, KvTypes, Tier};
use crate::synthetic::{Arch, Mix, Shape, Synthetic};

const GIB: u64 = 1 << 30;

pub(super) fn shape(arch: Arch, preset: &str, mtp: bool) -> ModelShape {
    let mut shape = Shape::preset(arch, preset).unwrap();
    shape.mtp = mtp;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let synthetic = Synthetic {
        header_only: true,
        ..Synthetic::new(shape, Mix::from_name("q4_k_m").unwrap())
    };
    synthetic.write(&path, |_, _| ()).unwrap();
    ModelShape::read(&Gguf::open(&path).unwrap()).unwrap()
}

fn mixture() -> &'static ModelShape {
    static SHAPE: OnceLock<ModelShape> = OnceLock::new();
    SHAPE.get_or_init(|| shape(Arch::Qwen3next, "80b-a3b", false))
}

fn dense() -> &'static ModelShape {
    static SHAPE: OnceLock<ModelShape> = OnceLock::new();
    SHAPE.get_or_init(|| shape(Arch::Llama, "mag-mell-12b", false))
}

pub(super) fn context(tokens: u32, parallel: u32, kv_type: KvType) -> Context {
    Context {
        tokens,
        parallel,
        kv_type: KvTypes::both(kv_type),
        pool: false,
        batch: BATCH,
        guesses: 2,
    }
}

fn request(name: &str, shape: &ModelShape) -> ModelRequest {
    ModelRequest {
        name: name.to_owned(),
        shape: shape.clone(),
        context: context(16_384, 1, KvType::F16),
        choices: Choices::default(),
        embeddings: Embeddings::None,
        stretch: None,
        draft_model: None,
        head: false,
        importance: 1,
        experts: ExpertsConfig::default(),
        gpu_layers: None,
    }
}

pub(super) fn pair() -> Vec<ModelRequest> {
    vec![request("mixture", mixture()), request("dense", dense())]
}

pub(super) fn machine(vram: u64, ram: u64) -> Machine {
    let bare = Machine {
        devices: Vec::new(),
        ram_total: 0,
        ram_available: 0,
        cores: 8,
    };
    bare.described(Described {
        vram: Some(vram * GIB),
        ram: Some(ram * GIB),
        unified: false,
    })
}

fn planned(machine: &Machine, models: &[ModelRequest]) -> Plan {
    plan(machine, &MemoryConfig::default(), models).unwrap()
}

fn refused(machine: &Machine, models: &[ModelRequest]) -> String {
    plan(machine, &MemoryConfig::default(), models).unwrap_err().to_string()
}

fn capacity(plan: &Plan) -> u32 {
    match plan.models[0].experts {
        Experts::Cache { capacity, .. } => capacity,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_and_values_and_states_are_exact() {
    let one = context(1, 1, KvType::F16);
    let per_token = |shape: &ModelShape| shape.layers.iter().map(|layer| one.kv_per_token(layer)).sum::<u64>();
    // 12 attention layers of Qwen3-Next with 2 heads of 256, 40 of Mag-Mell with 8 of 128.
    assert_eq!(per_token(mixture()), 24_576);
    assert_eq!(per_token(dense()), 163_840);
    assert_eq!(predict(mixture(), one).recurrent, 79_036_416);
    assert_eq!(
        predict(mixture(), context(512, 3, KvType::F16)).recurrent,
        3 * 79_036_416
    );
    // 34 bytes for 32 elements instead of 64.
    let eight = predict(dense(), context(1024, 2, KvType::Q8_0));
    assert_eq!(eight.kv, 2048 * 163_840 / 64 * 34);
    // Whole cells.
    assert_eq!(predict(dense(), context(100, 1, KvType::F16)).kv, 256 * 163_840);
}

#[test]
fn weights_are_the_tensors_of_the_file() {
    let with = shape(Arch::Qwen3next, "tiny", true);
    let without = shape(Arch::Qwen3next, "tiny", false);
    assert_eq!(with.layers.len(), without.layers.len());
    assert_eq!(with.weights() - without.weights(), with.outer[&Component::Mtp]);
    assert!(with.cache_entry() * 32 == with.routed_experts());
    assert_eq!(mixture().cache_entry() * 512, mixture().routed_experts());
}

/// What llama.cpp of llama-cpp-sys-2 0.1.161 allocated on a CPU for its compute and output buffers, in bytes.
#[test]
fn compute_buffers_are_near_llama_cpp() {
    const MIB: f64 = 1_048_576.0;
    let measured = [
        (Arch::Qwen3next, "80b-a3b", 4096, 4, 96.34),
        (Arch::Qwen3next, "80b-a3b", 512, 1, 91.10),
        (Arch::Qwen3moe, "30b-a3b", 8192, 4, 98.34),
        (Arch::GptOss, "20b", 8192, 4, 114.72),
        (Arch::Llama, "mag-mell-12b", 4096, 1, 138.52),
        (Arch::Qwen3next, "tiny", 8192, 4, 16.53),
        (Arch::Qwen3moe, "tiny", 512, 16, 9.05),
        (Arch::GptOss, "tiny", 4096, 1, 16.53),
        (Arch::Llama, "tiny", 512, 1, 6.02),
    ];
    for (arch, preset, tokens, parallel, mib) in measured {
        let predicted = predict(&shape(arch, preset, false), context(tokens, parallel, KvType::F16));
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let ratio = (predicted.compute + predicted.output) as f64 / (mib * MIB);
        assert!((0.96..1.02).contains(&ratio), "{arch:?} {preset}: {ratio}");
    }
}

#[test]
fn sliding_windows_have_a_mask_of_their_own() {
    let shape = shape(Arch::GptOss, "tiny", false);
    let sliding: Vec<bool> = shape.layers.iter().map(|layer| layer.sliding).collect();
    assert_eq!(sliding, [true, false, true, false]);
    assert_eq!(context(1024, 1, KvType::F16).masks(&shape), 2 * 1024 * 512 * 2);
    // A window that the architecture ignores is none.
    assert!(mixture().layers.iter().all(|layer| !layer.sliding));
}

#[test]
fn larger_gpus_hold_more() {
    let sizes: Vec<u32> = [16, 24, 32]
        .map(|vram| capacity(&planned(&machine(vram, 100), &pair())))
        .into();
    assert!(
        sizes.is_sorted() && sizes[0] > 10 && sizes[2] > 2 * sizes[0],
        "{sizes:?}"
    );
    let all = planned(&machine(80, 100), &pair());
    assert_eq!(all.models[0].experts, Experts::Layers);
    assert!(all.models.iter().all(|model| model.gpu_layers.is_none()));
    for vram in [1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 64, 80] {
        let plan = planned(&machine(vram, 100), &pair());
        for tier in &plan.tiers {
            let rows: u64 = plan.models.iter().map(|model| model.bytes(tier.tier)).sum();
            assert_eq!(rows, tier.used, "{vram}");
            assert!(tier.used <= tier.budget && tier.budget < tier.total, "{vram}: {tier:?}");
        }
    }
}

#[test]
fn layers_of_the_dense_model_go_first() {
    let plan = planned(&machine(8, 100), &pair());
    assert_eq!(plan.models[0].gpu_layers, None);
    assert!(
        plan.models[1]
            .gpu_layers
            .is_some_and(|layers| layers > 0 && layers < 41)
    );
    // What is split over two tiers is all there.
    let parts: u64 = plan.models[1]
        .rows
        .iter()
        .filter(|row| row.component == "feed-forward")
        .map(|row| row.bytes)
        .sum();
    let whole: u64 = dense()
        .layers
        .iter()
        .map(|layer| layer.weights[&Component::FeedForward])
        .sum();
    assert_eq!(parts, whole);
}

#[test]
fn a_gpu_that_is_too_small_is_left_alone() {
    let mut machine = machine(1, 100);
    for free in [GIB, GIB / 4, 0] {
        machine.devices[0].free = free;
        let plan = planned(&machine, &pair());
        assert_eq!(plan.device, None, "{free}");
        assert!(plan.reasons[0].contains("too small"), "{:?}", plan.reasons);
    }
    // Unless something insists on it.
    let mut models = pair();
    models[1].gpu_layers = Some(3);
    machine.devices[0].free = GIB;
    assert!(refused(&machine, &models).contains("but its budget is 512.0 MiB"));
}

#[test]
fn several_gpus_are_not_mixed() {
    let mut machine = machine(8, 100);
    let other = Gpu {
        name: "NVIDIA GeForce RTX 4090".to_owned(),
        total: 24 * GIB,
        free: 23 * GIB,
        unified: false,
        backend: "CUDA".to_owned(),
        id: None,
    };
    machine.devices.push(other);
    let plan = planned(&machine, &pair());
    assert_eq!(plan.device, Some(1));
    assert!(plan.reasons[0].contains("only NVIDIA GeForce RTX 4090"));
    let assumed = &plan.models[1].decode.assumptions;
    assert!(assumed[0].contains("1008 GB/s"), "{assumed:?}");
}

#[test]
fn absurd_headers_do_not_overflow() {
    let mut absurd = pair();
    for model in &mut absurd {
        model.context.tokens = u32::MAX;
        model.context.parallel = 64;
        if let Some(ssm) = &mut model.shape.ssm {
            (ssm.inner_size, ssm.state_size, ssm.group_count) = (1 << 30, 1 << 30, 1 << 30);
        }
        for layer in &mut model.shape.layers {
            (layer.keys, layer.values, layer.queries) = (1 << 24, 1 << 24, 1 << 24);
        }
    }
    let error = refused(&machine(16, 100), &absurd);
    assert!(error.contains("TiB"), "{error}");
}

#[test]
fn one_memory_has_no_cache() {
    let bare = machine(0, 1);
    let machine = bare.described(Described {
        vram: Some(128 * GIB),
        ram: None,
        unified: true,
    });
    let plan = planned(&machine, &pair());
    assert!(plan.unified && !plan.mmap);
    assert_eq!(plan.tiers.len(), 1);
    assert!(
        plan.models
            .iter()
            .all(|model| model.gpu_layers.is_none() && !matches!(model.experts, Experts::Cache { .. }))
    );
    let mut models = pair();
    models[0].experts.placement = ExpertPlacement::Cache;
    let plan = planned(&machine, &models);
    assert!(
        plan.models[0].reasons[0].contains("one memory"),
        "{:?}",
        plan.models[0].reasons
    );
}

#[test]
fn files_are_read_where_a_gpu_fetches_experts_and_ram_is_left() {
    for (vram, ram, mapped) in [(24, 100, false), (24, 50, true), (80, 100, true), (0, 100, true)] {
        let plan = planned(&machine(vram, ram), &pair());
        assert_eq!(plan.mmap, mapped, "{vram} {ram}: {:?}", plan.reasons);
        let told = plan.reasons.iter().any(|reason| reason.starts_with("files are"));
        assert_eq!(told, matches!(plan.models[0].experts, Experts::Cache { .. }));
    }
    // A head that is not used stays in its file, unless that is mapped.
    let mut models = pair();
    models[0].shape = shape(Arch::Qwen3next, "80b-a3b", true);
    let plan = planned(&machine(24, 100), &models);
    let rows: u64 = plan.models.iter().map(|model| model.bytes(Tier::Ram)).sum();
    assert_eq!(plan.tiers.last().map(|tier| tier.used), Some(rows));
    assert!(!plan.mmap);
    // What a map makes slow is in the estimate.
    let time = |ram: u64| planned(&machine(24, ram), &pair()).models[0].first_token;
    assert!(time(50) > 1.5 * time(100), "{} {}", time(50), time(100));
}

#[test]
fn without_a_gpu_everything_is_in_ram() {
    let plan = planned(&machine(0, 100), &pair());
    assert_eq!(plan.device, None);
    assert_eq!(plan.tiers.len(), 1);
    assert!(plan.models.iter().all(|model| model.gpu_layers == Some(0)));
    // As predicted for the CPU.
    for (model, request) in plan.models.iter().zip(pair()) {
        let predicted = predict(&request.shape, request.context);
        assert_eq!(model.bytes(Tier::Ram), predicted.total());
        assert_eq!(model.kind(Tier::Ram, Kind::Kv), predicted.kv);
        assert_eq!(model.kind(Tier::Ram, Kind::Recurrent), predicted.recurrent);
        assert_eq!(
            model.kind(Tier::Ram, Kind::Compute),
            predicted.compute + predicted.output
        );
    }
    let mut models = pair();
    models[0].experts.placement = ExpertPlacement::Cache;
    let plan = planned(&machine(0, 100), &models);
    assert_eq!(plan.models[0].experts, Experts::Layers);
    assert!(plan.models[0].reasons[0].contains("there is no GPU"));
    models[0].experts.placement = ExpertPlacement::Gpu;
    assert!(refused(&machine(0, 100), &models).contains("there is no GPU"));
    models[0].experts.placement = ExpertPlacement::Cache;
    // Copies in main memory are for trying.
    models[0].experts.device = CacheDevice::Cpu;
    assert_eq!(capacity(&planned(&machine(0, 100), &models)), 128);
}

#[test]
fn settings_are_respected() {
    let mut models = pair();
    models[0].experts.cache = CacheSize::Percent(10);
    assert_eq!(capacity(&planned(&machine(24, 100), &models)), 51);
    models[0].experts.cache = CacheSize::Bytes(4 * GIB);
    assert_eq!(capacity(&planned(&machine(24, 100), &models)), 45);
    models[0].experts.placement = ExpertPlacement::Cpu;
    let plan = planned(&machine(24, 100), &models);
    assert_eq!(plan.models[0].experts, Experts::Ram);
    assert!(
        plan.models[0]
            .reasons
            .iter()
            .any(|reason| reason.contains("`experts.cache` is not used"))
    );
    let mut models = pair();
    models[1].gpu_layers = Some(10);
    let plan = planned(&machine(24, 100), &models);
    assert_eq!(plan.models[1].gpu_layers, Some(10));
    assert!(capacity(&plan) > capacity(&planned(&machine(24, 100), &pair())));
    // Whole layers of a mixture, with their experts.
    models[0].gpu_layers = Some(5);
    let plan = planned(&machine(24, 100), &models);
    assert_eq!(plan.models[0].experts, Experts::Layers);
    let limits = MemoryConfig {
        vram: MemoryLimit::Bytes(12 * GIB),
        ..MemoryConfig::default()
    };
    let plan = super::plan(&machine(24, 100), &limits, &pair()).unwrap();
    assert_eq!(plan.tiers[0].budget, 12 * GIB);
}

#[test]
fn what_cannot_be_is_told_with_what_can() {
    let mut models = pair();
    models[0].experts.cache = CacheSize::Percent(80);
    let error = refused(&machine(24, 100), &models);
    assert!(
        error.contains("expert cache of mixture 34.9 GiB") && error.contains("`experts.cache` of \"auto\" fits"),
        "{error}"
    );
    models[0].experts = ExpertsConfig {
        placement: ExpertPlacement::Gpu,
        ..ExpertsConfig::default()
    };
    let error = refused(&machine(24, 100), &models);
    assert!(
        error.contains("it fits with `gpu_layers` and `experts` left to hearth"),
        "{error}"
    );
    models[0].gpu_layers = Some(3);
    assert!(refused(&machine(24, 100), &models).contains("leave out one of the two"));
    let error = refused(&machine(24, 32), &pair());
    assert!(
        error.contains("RAM") && error.contains("it fits without mixture"),
        "{error}"
    );
    let mut long = pair();
    long[1].context.tokens = 131_072;
    long[1].context.parallel = 8;
    let error = refused(&machine(16, 100), &long);
    assert!(
        error.contains("a context of") && error.contains("`parallel` of 1"),
        "{error}"
    );
    let mut odd = pair();
    odd[1].shape.key_length = 80;
    odd[1].context.kv_type = KvTypes::both(KvType::Q8_0);
    assert!(refused(&machine(16, 100), &odd).contains("blocks of 32, but a head has 80 elements"));
    odd[1].context.kv_type.keys = KvType::F16;
    planned(&machine(24, 100), &odd[1..]);
}

#[test]
fn caches_share_what_is_left() {
    let other = shape(Arch::Qwen3moe, "30b-a3b", false);
    let models = vec![request("large", mixture()), request("small", &other)];
    let plan = planned(&machine(16, 100), &models);
    let shares: Vec<u32> = plan
        .models
        .iter()
        .map(|model| match model.experts {
            Experts::Cache { capacity, of, .. } => capacity * 100 / of,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(shares[0].abs_diff(shares[1]) <= 2, "{shares:?}");
}
