//! What was found, as plain data. Amounts are bytes, speeds bytes per second.

use std::path::PathBuf;

use crate::host::Gpu;

/// Everything that is judged. The default is a machine of which nothing is known.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub cpu: Cpu,
    pub memory: MemoryFacts,
    pub gpu: GpuFacts,
    pub models: Vec<ModelFile>,
    pub folders: Vec<FolderFacts>,
    /// What a disk without models reached.
    pub disk_speed: Option<f64>,
    pub config: Configured,
    pub ports: Vec<PortFacts>,
    /// Open files that the process may have.
    pub open_files: Option<u64>,
    pub clock: Option<Clock>,
}

#[derive(Debug, Clone, Default)]
pub struct Cpu {
    pub name: String,
    /// Physical cores that the process may use.
    pub cores: u32,
    /// Hardware threads that it may use.
    pub threads: u32,
    /// Cores' worth of time that a container grants.
    pub quota: Option<f64>,
    /// Threads that computed or wanted to, on average over the last minute.
    pub load: Option<f64>,
    pub numa_nodes: usize,
    /// Features that llama.cpp uses, and those that it could.
    pub used: Vec<String>,
    pub unused: Vec<String>,
    pub scaling: Option<Scaling>,
    /// What the configuration says for each model that says anything.
    pub configured_threads: Vec<(String, u32)>,
}

/// How the system sets the clock of the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    pub driver: String,
    pub governor: String,
}

#[derive(Debug, Clone, Default)]
pub struct MemoryFacts {
    /// What the machine has.
    pub total: u64,
    /// What the container may have.
    pub limit: Option<u64>,
    pub available: u64,
    /// Pages of files that the system keeps.
    pub cached: u64,
    /// What all cores together read.
    pub bandwidth: Option<f64>,
    pub huge_pages: Option<HugePages>,
    pub swap_total: u64,
    pub swap_used: u64,
    pub swappiness: Option<u32>,
    /// Memory that may be locked; `Some(None)` is without limit.
    pub lock_limit: Option<Option<u64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePages {
    /// `always`, `madvise` or `never`.
    pub transparent: Option<String>,
    /// Memory that is set aside for explicit huge pages.
    pub reserved: u64,
}

#[derive(Debug, Clone, Default)]
pub struct GpuFacts {
    /// What llama.cpp found.
    pub found: Vec<Gpu>,
    /// Backends that are compiled in: `cuda`, `vulkan`, `metal`.
    pub built: Vec<&'static str>,
    /// Modules are loaded at run time, so anything may be there.
    pub dynamic: bool,
    /// Makers of the display controllers on the PCI bus.
    pub on_bus: Vec<&'static str>,
    /// The version of NVIDIA's kernel module.
    pub nvidia_driver: Option<String>,
    /// NVIDIA's devices can be opened.
    pub nvidia_nodes: bool,
    /// The name of the machine, as its maker gives it.
    pub product: Option<String>,
}

/// A file of a model of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    /// What its disk reached at the start of the file.
    pub speed: Option<f64>,
}

/// A folder that hearth writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderFacts {
    /// What it is for.
    pub what: &'static str,
    pub path: PathBuf,
    pub free: Option<u64>,
    pub writable: bool,
}

/// What became of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// The file; `None` for the built-in pair.
    pub file: Option<PathBuf>,
    pub models: usize,
    pub warnings: Vec<String>,
    /// Mistakes, models that cannot be read or do not fit.
    pub mistakes: Vec<String>,
    pub max_connections: u64,
}

/// A port that the server would listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    pub port: u16,
    /// Whose it is: the server's or a model's.
    pub of: String,
    pub taken: Option<Taken>,
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    Hearth,
    Other,
    /// The system refuses it, for this reason.
    Refused(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970.
    pub now: u64,
    /// `None` where the system does not tell.
    pub synchronized: Option<bool>,
}
