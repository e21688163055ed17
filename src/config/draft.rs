//! The configuration while its layers are put on top of each other: every value remembers its origin.

use std::net::IpAddr;
use std::time::Duration;

use super::diagnostic::Origin;
use super::types::{
    CacheDevice, CacheSize, Config, ExpertPlacement, ExpertsConfig, KvType, MemoryConfig, MemoryLimit, ModelConfig,
    ModelSource, ServerConfig,
};
use crate::engine::SamplingOverrides;
use crate::experts::policy::PolicyKind;

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Setting<T> {
    pub fn new(value: T, origin: &Origin) -> Self {
        Self {
            value,
            origin: origin.clone(),
        }
    }

    pub fn default_of(value: T) -> Self {
        Self::new(value, &Origin::Default)
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting {
            value: change(self.value),
            origin: self.origin,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub server: ServerDraft,
    pub memory: MemoryDraft,
    pub models: Vec<ModelDraft>,
}

#[derive(Debug, Clone)]
pub(super) struct ServerDraft {
    pub host: Setting<IpAddr>,
    pub port: Setting<u16>,
    pub http_threads: Setting<usize>,
    pub body_limit: Setting<usize>,
    pub shutdown_grace: Setting<Duration>,
    pub allowed_hosts: Setting<Vec<String>>,
    pub allowed_origins: Setting<Vec<String>>,
    pub strict_models: Setting<bool>,
}

impl Default for ServerDraft {
    fn default() -> Self {
        let ServerConfig {
            host,
            port,
            http_threads,
            body_limit,
            shutdown_grace,
            allowed_hosts,
            allowed_origins,
            strict_models,
        } = ServerConfig::default();
        Self {
            host: Setting::default_of(host),
            port: Setting::default_of(port),
            http_threads: Setting::default_of(http_threads),
            body_limit: Setting::default_of(body_limit),
            shutdown_grace: Setting::default_of(shutdown_grace),
            allowed_hosts: Setting::default_of(allowed_hosts),
            allowed_origins: Setting::default_of(allowed_origins),
            strict_models: Setting::default_of(strict_models),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct MemoryDraft {
    pub vram: Setting<MemoryLimit>,
    pub ram: Setting<MemoryLimit>,
    pub headroom: Setting<MemoryLimit>,
}

impl Default for MemoryDraft {
    fn default() -> Self {
        Self {
            vram: Setting::default_of(MemoryLimit::Auto),
            ram: Setting::default_of(MemoryLimit::Auto),
            headroom: Setting::default_of(MemoryLimit::Auto),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct ModelDraft {
    /// `None` after a mistake that has been reported.
    pub name: Option<Setting<String>>,
    pub role: Option<Setting<String>>,
    pub aliases: Vec<Setting<String>>,
    /// `None` after a mistake that has been reported.
    pub source: Option<Setting<ModelSource>>,
    pub port: Option<Setting<u16>>,
    pub context: Setting<Option<u32>>,
    pub parallel: Setting<u32>,
    pub threads: Setting<Option<u32>>,
    pub queue: Setting<usize>,
    pub kv_type: Setting<KvType>,
    pub gpu_layers: Setting<Option<u32>>,
    pub placement: Setting<ExpertPlacement>,
    pub cache: Setting<CacheSize>,
    pub device: Setting<CacheDevice>,
    pub policy: Setting<Option<PolicyKind>>,
    pub sampling: Setting<SamplingOverrides>,
}

impl Default for ModelDraft {
    fn default() -> Self {
        Self {
            name: None,
            role: None,
            aliases: Vec::new(),
            source: None,
            port: None,
            context: Setting::default_of(None),
            parallel: Setting::default_of(ModelConfig::PARALLEL),
            threads: Setting::default_of(None),
            queue: Setting::default_of(ModelConfig::QUEUE),
            kv_type: Setting::default_of(KvType::default()),
            gpu_layers: Setting::default_of(None),
            placement: Setting::default_of(ExpertsConfig::default().placement),
            cache: Setting::default_of(ExpertsConfig::default().cache),
            device: Setting::default_of(ExpertsConfig::default().device),
            policy: Setting::default_of(ExpertsConfig::default().policy),
            sampling: Setting::default_of(SamplingOverrides::default()),
        }
    }
}

impl Draft {
    /// The checked configuration; `None` where a model lost its name or its source to a reported mistake.
    pub fn build(&self) -> Option<Config> {
        Some(Config {
            server: ServerConfig {
                host: self.server.host.value,
                port: self.server.port.value,
                http_threads: self.server.http_threads.value,
                body_limit: self.server.body_limit.value,
                shutdown_grace: self.server.shutdown_grace.value,
                allowed_hosts: self.server.allowed_hosts.value.clone(),
                allowed_origins: self.server.allowed_origins.value.clone(),
                strict_models: self.server.strict_models.value,
            },
            memory: MemoryConfig {
                vram: self.memory.vram.value,
                ram: self.memory.ram.value,
                headroom: self.memory.headroom.value,
            },
            models: self.models.iter().map(ModelDraft::build).collect::<Option<_>>()?,
        })
    }
}

impl ModelDraft {
    fn build(&self) -> Option<ModelConfig> {
        Some(ModelConfig {
            name: self.name.as_ref()?.value.clone(),
            role: self.role.as_ref().map(|role| role.value.clone()),
            aliases: self.aliases.iter().map(|alias| alias.value.clone()).collect(),
            source: self.source.as_ref()?.value.clone(),
            port: self.port.as_ref().map(|port| port.value),
            context: self.context.value,
            parallel: self.parallel.value,
            threads: self.threads.value,
            queue: self.queue.value,
            kv_type: self.kv_type.value,
            gpu_layers: self.gpu_layers.value,
            experts: ExpertsConfig {
                placement: self.placement.value,
                cache: self.cache.value,
                device: self.device.value,
                policy: self.policy.value,
            },
            sampling: self.sampling.value.clone(),
        })
    }
}
