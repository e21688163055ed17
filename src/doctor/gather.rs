//! Reads and measures what [`super::judge`] judges. What cannot be read is left out.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::facts::{
    Clock, Configured, Cpu, Facts, FolderFacts, GpuFacts, HugePages, MemoryFacts, ModelFile, PortFacts, Scaling, Taken,
};
use super::measure;
use crate::config::{self, Config, ModelSource, Overrides};
use crate::gguf::Gguf;
use crate::host::{self, Machine};
use crate::plan;
use crate::{folders, models};

/// Time for one measurement.
const LIMIT: Duration = Duration::from_secs(1);
/// Files of models whose disks are measured.
const MAX_FILES: usize = 4;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub overrides: Overrides,
    /// Measure the speed of memory and disks, which takes a few seconds.
    pub measure: bool,
}

/// Looks at this machine and at the configuration.
#[must_use]
pub fn gather(options: &Options) -> Facts {
    let loaded = config::load(&options.overrides);
    let limits = loaded.as_ref().map(|loaded| loaded.config.memory);
    let machine = models::machine(&limits.unwrap_or_default());
    let mut facts = Facts {
        memory: memory(&machine, options.measure),
        gpu: gpu(&machine),
        folders: [("models", folders::models()), ("cache", folders::cache())]
            .into_iter()
            .map(|(what, path)| folder(what, &path))
            .collect(),
        open_files: open_files(),
        clock: clock(),
        ..Facts::default()
    };
    let mut config = None;
    match loaded {
        Ok(loaded) => {
            facts.config.file = loaded.file.clone();
            facts.config.warnings = loaded
                .warnings
                .diagnostics()
                .iter()
                .map(|told| told.message.clone())
                .collect();
            config = Some(loaded.config);
        }
        Err(errors) => {
            facts.config.file = errors.source_file().map(|source| source.path.clone());
            let told = errors.diagnostics().iter().map(|told| told.message.clone());
            facts.config.mistakes = told.collect();
        }
    }
    facts.cpu = cpu(&machine, config.as_ref());
    if let Some(config) = &config {
        facts.models = files(config, options.measure);
        facts.ports = ports(config);
        check(config, &machine, &mut facts.config);
    }
    if options.measure && facts.models.is_empty() {
        let cache = folders::cache();
        let here = [folders::models(), cache].into_iter().find(|folder| folder.is_dir());
        let here = here.unwrap_or_else(std::env::temp_dir);
        facts.disk_speed = measure::disk(&here, LIMIT).ok().flatten();
    }
    facts
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim_matches(['\0', '\n', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn cpu(machine: &Machine, config: Option<&Config>) -> Cpu {
    let features = host::cpu::Cpu::this();
    let used = features
        .features
        .iter()
        .filter(|feature| features.llama_cpp.contains(feature));
    let policy = Path::new("/sys/devices/system/cpu/cpu0/cpufreq");
    let scaling = text(policy.join("scaling_driver")).zip(text(policy.join("scaling_governor")));
    let configured = config.into_iter().flat_map(|config| &config.models);
    Cpu {
        name: host::processor_name(),
        cores: machine.cores,
        threads: std::thread::available_parallelism().map_or(1, |threads| u32::try_from(threads.get()).unwrap_or(1)),
        quota: cgroup("cpu.max").and_then(|text| quota(&text)),
        load: host::load(),
        numa_nodes: host::numa_nodes(),
        used: used.cloned().collect(),
        unused: features.unused.clone(),
        scaling: scaling.map(|(driver, governor)| Scaling { driver, governor }),
        configured_threads: configured
            .filter_map(|model| Some((model.name.clone(), model.threads?)))
            .collect(),
    }
}

/// A file of this process's control group, or of the container's root.
fn cgroup(name: &str) -> Option<String> {
    let root = Path::new("/sys/fs/cgroup");
    let own = text("/proc/self/cgroup").and_then(|text| {
        text.lines()
            .find_map(|line| line.strip_prefix("0::/").map(str::to_owned))
    });
    own.and_then(|own| text(root.join(own).join(name)))
        .or_else(|| text(root.join(name)))
}

/// Cores' worth of time in `cpu.max`: `200000 100000`, or `max 100000` for no limit.
fn quota(text: &str) -> Option<f64> {
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let (quota, period) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (period > 0.0).then(|| quota / period)
}

fn memory(machine: &Machine, measure: bool) -> MemoryFacts {
    let meminfo = text("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| meminfo_field(&meminfo, name);
    let huge = field("HugePages_Total").zip(field("Hugepagesize"));
    let huge_pages = (!meminfo.is_empty()).then(|| HugePages {
        transparent: text("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| chosen(&text)),
        reserved: huge.map_or(0, |(pages, size)| pages.saturating_mul(size)),
    });
    let total = field("MemTotal").unwrap_or(machine.ram_total);
    MemoryFacts {
        total,
        limit: (machine.ram_total < total).then_some(machine.ram_total),
        available: machine.ram_available,
        cached: field("Cached").unwrap_or(0),
        bandwidth: measure
            .then(|| measure::memory(machine.cores, machine.ram_available, LIMIT))
            .flatten(),
        huge_pages,
        swap_total: field("SwapTotal").unwrap_or(0),
        swap_used: field("SwapTotal")
            .unwrap_or(0)
            .saturating_sub(field("SwapFree").unwrap_or(0)),
        swappiness: text("/proc/sys/vm/swappiness").and_then(|text| text.parse().ok()),
        lock_limit: lock_limit(),
    }
}

/// A number of `/proc/meminfo`: bytes where it has a unit.
fn meminfo_field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    match line.trim().strip_suffix("kB") {
        Some(kib) => kib.trim().parse::<u64>().ok()?.checked_mul(1024),
        None => line.trim().parse().ok(),
    }
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(unix)]
fn lock_limit() -> Option<Option<u64>> {
    use rustix::process::{Resource, getrlimit};

    Some(getrlimit(Resource::Memlock).current)
}

#[cfg(unix)]
fn open_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};

    Some(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

#[cfg(not(unix))]
fn lock_limit() -> Option<Option<u64>> {
    None
}

#[cfg(not(unix))]
fn open_files() -> Option<u64> {
    None
}

fn gpu(machine: &Machine) -> GpuFacts {
    let built = [
        ("cuda", cfg!(feature = "cuda")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("metal", cfg!(feature = "metal")),
    ];
    GpuFacts {
        found: machine.devices.clone(),
        built: built
            .into_iter()
            .filter_map(|(name, built)| built.then_some(name))
            .collect(),
        dynamic: cfg!(feature = "dynamic-backends"),
        on_bus: on_bus(Path::new("/sys/bus/pci/devices")),
        nvidia_driver: text("/proc/driver/nvidia/version").and_then(|text| nvidia_version(&text)),
        nvidia_nodes: fs::File::open("/dev/nvidia0").is_ok(),
        product: text("/sys/class/dmi/id/product_name").or_else(|| text("/proc/device-tree/model")),
    }
}

/// Makers of display controllers and accelerators.
fn on_bus(devices: &Path) -> Vec<&'static str> {
    let mut makers: Vec<&str> = fs::read_dir(devices)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|device| {
            let class = text(device.path().join("class")).unwrap_or_default();
            class.starts_with("0x03") || class.starts_with("0x12")
        })
        .filter_map(|device| match text(device.path().join("vendor"))?.as_str() {
            "0x10de" => Some("NVIDIA"),
            "0x1002" => Some("AMD"),
            "0x8086" => Some("Intel"),
            _ => None,
        })
        .collect();
    makers.sort_unstable();
    makers.dedup();
    makers
}

/// The number in `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build ...`.
fn nvidia_version(text: &str) -> Option<String> {
    let words = text.lines().next()?.split_whitespace();
    let number = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    words.into_iter().find(number).map(str::to_owned)
}

fn folder(what: &'static str, path: &Path) -> FolderFacts {
    // What is not there yet is made where it can be.
    let there = path.ancestors().find(|path| path.is_dir());
    FolderFacts {
        what,
        path: path.to_owned(),
        free: host::free_bytes(path),
        writable: there.is_some_and(|folder| tempfile::tempfile_in(folder).is_ok()),
    }
}

fn files(config: &Config, measure: bool) -> Vec<ModelFile> {
    let models = config.models.iter().filter_map(|model| match &model.source {
        ModelSource::File(path) => Some((model, path)),
        ModelSource::Demo(_) | ModelSource::Upstream => None,
    });
    let files = models.enumerate().filter_map(|(index, (model, path))| {
        let bytes = match Gguf::open(path) {
            Ok(gguf) => gguf.size_bytes(),
            Err(_) => fs::metadata(path).ok()?.len(),
        };
        let measured = measure && index < MAX_FILES;
        Some(ModelFile {
            name: model.name.clone(),
            path: path.clone(),
            bytes,
            speed: measured.then(|| measure::file(path, LIMIT).ok().flatten()).flatten(),
        })
    });
    files.collect()
}

/// Whether the models of a valid configuration can be read and fit.
fn check(config: &Config, machine: &Machine, configured: &mut Configured) {
    configured.models = config.models.len();
    configured.max_connections = config.server.max_connections as u64;
    // Models of other servers have no file.
    let here = config
        .models
        .iter()
        .filter(|model| model.source != ModelSource::Upstream);
    let (prepared, broken): (Vec<_>, Vec<_>) = here.map(models::prepare).partition(Result::is_ok);
    let broken = broken
        .into_iter()
        .filter_map(Result::err)
        .map(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        });
    configured.mistakes.extend(broken);
    if !configured.mistakes.is_empty() {
        return;
    }
    let prepared: Vec<_> = prepared.into_iter().flatten().collect();
    let planned = models::requests(&prepared, machine)
        .map_err(|error| error.to_string())
        .and_then(|requests| plan::plan(machine, &config.memory, &requests).map_err(|error| error.what));
    configured.mistakes.extend(planned.err());
}

fn ports(config: &Config) -> Vec<PortFacts> {
    let server = std::iter::once((config.server.port, "server".to_owned()));
    let own = config
        .models
        .iter()
        .filter_map(|model| Some((model.port?, model.name.clone())));
    server
        .chain(own)
        // 0 is whatever is free.
        .filter(|(port, _)| *port > 0)
        .map(|(port, of)| PortFacts {
            port,
            of,
            taken: taken(SocketAddr::new(config.server.host, port)),
        })
        .collect()
}

fn taken(address: SocketAddr) -> Option<Taken> {
    match TcpListener::bind(address) {
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Some(if is_hearth(address) {
            Taken::Hearth
        } else {
            Taken::Other
        }),
        Err(error) => Some(Taken::Refused(error.to_string())),
    }
}

/// Whether hearth answers there: its `/version` tells of llama.cpp's features.
fn is_hearth(address: SocketAddr) -> bool {
    const WAIT: Duration = Duration::from_millis(500);
    let host = if address.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        address.ip()
    };
    let ask = || {
        let mut socket = TcpStream::connect_timeout(&SocketAddr::new(host, address.port()), WAIT)?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.write_all(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.take(64 << 10).read_to_end(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| String::from_utf8_lossy(&answer).contains("\"llama_cpp\""))
}

fn clock() -> Option<Clock> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    // systemd-timesyncd says so; others say nothing.
    let service = Path::new("/run/systemd/timesync");
    let synchronized = service.is_dir().then(|| service.join("synchronized").exists());
    Some(Clock { now, synchronized })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_system_are_read() {
        assert_eq!(quota("200000 100000"), Some(2.0));
        assert_eq!(quota("max 100000"), None);
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("what"), None);
        let meminfo = "MemTotal:  2 kB\nHugePages_Total:   3\n";
        assert_eq!(meminfo_field(meminfo, "MemTotal"), Some(2048));
        assert_eq!(meminfo_field(meminfo, "HugePages_Total"), Some(3));
        assert_eq!(meminfo_field(meminfo, "Mem"), None);
        let version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC";
        assert_eq!(nvidia_version(version).as_deref(), Some("580.95.05"));
    }

    #[test]
    fn display_controllers_are_found_on_the_bus() {
        let bus = tempfile::tempdir().unwrap();
        for (name, class, vendor) in [
            ("a", "0x030200", "0x10de"),
            ("b", "0x030000", "0x8086"),
            ("c", "0x010802", "0x144d"),
            ("d", "0x120000", "0x1002"),
        ] {
            let device = bus.path().join(name);
            fs::create_dir(&device).unwrap();
            fs::write(device.join("class"), format!("{class}\n")).unwrap();
            fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
        }
        assert_eq!(on_bus(bus.path()), ["AMD", "Intel", "NVIDIA"]);
        assert!(on_bus(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn ports_that_others_hold_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.write_all(b"HTTP/1.0 404 no\r\n\r\n");
        });
        assert_eq!(taken(address), Some(Taken::Other));
        other.join().unwrap();
        assert_eq!(taken(address), None);
    }
}
