//! A model with a cache and without, in this process: on the CPU, or on the GPU where `HEARTH_TEST_CACHE_DEVICE` says so.

// Each test takes what it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use hearth::experts::heat::HeatMap;
use hearth::experts::policy::{PolicyConfig, PolicyKind};
use hearth::experts::{self, CacheConfig, Capacity, Device, ExpertCache};
use hearth::fingerprint::Fingerprint;
use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

/// `scripts/test-gpu-path` runs these tests on a GPU, real or in software.
pub fn cache_device() -> Device {
    let gpu = std::env::var_os("HEARTH_TEST_CACHE_DEVICE").is_some_and(|device| device == "gpu");
    if gpu {
        Device::Gpu(hearth::host::gpus(0)[0].id.expect("a GPU"))
    } else {
        Device::Cpu
    }
}

pub fn llama() -> &'static LlamaBackend {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        // Nobody listens.
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().unwrap()
    })
}

/// Where the experts are.
#[derive(Debug, Clone, Copy)]
pub enum Experts<'a> {
    /// Where all else is: on a GPU, if there is one.
    WithTheRest,
    InMainMemory,
    Cached(&'a Arc<ExpertCache>),
}

impl<'a> From<Option<&'a Arc<ExpertCache>>> for Experts<'a> {
    fn from(cache: Option<&'a Arc<ExpertCache>>) -> Self {
        cache.map_or(Self::WithTheRest, Self::Cached)
    }
}

pub fn load<'a>(path: &Path, experts: impl Into<Experts<'a>>) -> LlamaModel {
    let layers = if cache_device() == Device::Cpu { 0 } else { 9999 };
    let params = LlamaModelParams::default().with_n_gpu_layers(layers);
    let mut params = pin!(params);
    let load = |params: &LlamaModelParams| LlamaModel::load_from_file(llama(), path, params).unwrap();
    let experts = experts.into();
    let cached = matches!(experts, Experts::Cached(_));
    let pattern = experts::in_main_memory(None, cached).unwrap();
    match experts {
        Experts::WithTheRest => load(&params),
        Experts::InMainMemory => {
            params.as_mut().add_cpu_buft_override(&pattern);
            load(&params)
        }
        Experts::Cached(cache) => {
            params.as_mut().add_cpu_buft_override(&pattern);
            experts::load_with(cache, || load(&params)).unwrap()
        }
    }
}

/// A cache with a share of the experts; for the static policy, with a heat map that likes the even ones.
pub fn cache(path: &Path, share: f32, kind: PolicyKind) -> Arc<ExpertCache> {
    let step = if kind == PolicyKind::Static { Some(2) } else { None };
    cache_with_heat(path, share, kind, step)
}

pub fn cache_with_heat(path: &Path, share: f32, kind: PolicyKind, every: Option<usize>) -> Arc<ExpertCache> {
    let shape = Gguf::open(path).unwrap().geometry().unwrap();
    let (layers, experts) = ((shape.layers + shape.mtp_layers) as usize, shape.experts as usize);
    let mut heat = HeatMap::new(Fingerprint::of([]), layers, experts);
    if let Some(every) = every {
        let liked: Vec<u32> = (0..shape.experts).step_by(every).collect();
        (0..layers).for_each(|layer| heat.observe(layer, &liked));
    }
    let config = CacheConfig {
        device: cache_device(),
        capacity: Capacity::Share(share),
        policy: PolicyConfig {
            kind,
            ..PolicyConfig::default()
        },
        experts_per_token: shape.experts_per_token,
        pinned: BTreeMap::new(),
    };
    ExpertCache::start(config, heat, None).unwrap()
}

pub fn model(folder: &Path, arch: Arch, mix: &str) -> PathBuf {
    let shape = Shape::preset(arch, "tiny").unwrap();
    write(folder, shape, mix)
}

pub fn write(folder: &Path, shape: Shape, mix: &str) -> PathBuf {
    let path = folder.join(format!("{}-{mix}.gguf", shape.arch.as_str()));
    let synthetic = Synthetic {
        skew: 0.5,
        seed: 7,
        ..Synthetic::new(shape, Mix::from_name(mix).unwrap())
    };
    synthetic.write(&path, |_, _| ()).unwrap();
    path
}
