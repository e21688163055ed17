//! What NVIDIA's driver says about the GPUs of this machine, where there is one. Nothing else needs it: without the driver's
//! library there are no readings.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::{Device, Nvml};
use parking_lot::Mutex;

/// What the driver says of a GPU. What a GPU does not tell is `None`: those with unified memory have none of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuUse {
    /// Its number in the driver, which counts GPUs that `CUDA_VISIBLE_DEVICES` hides, too.
    pub index: u32,
    pub name: String,
    pub uuid: String,
    /// The driver's version.
    pub driver: String,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes, of all processes.
    pub memory_used: Option<u64>,
    /// Share of the last second or less in which a kernel ran, 0 to 1.
    pub busy: Option<f64>,
    /// Share of that time in which memory was read or written, 0 to 1.
    pub memory_busy: Option<f64>,
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Watts.
    pub power: Option<f64>,
    /// Watts.
    pub power_limit: Option<f64>,
    /// Hertz.
    pub clock: Option<u64>,
    /// Hertz.
    pub memory_clock: Option<u64>,
}

/// How long readings are good for: a driver takes milliseconds to answer, and several may ask at once.
const FRESH: Duration = Duration::from_secs(1);

static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
static LAST: Mutex<Option<(Instant, Vec<GpuUse>)>> = Mutex::new(None);

/// What the driver says of the GPUs, a second old at most; empty without a driver. Blocks.
#[must_use]
pub fn gpu_use() -> Vec<GpuUse> {
    let nvml = NVML.get_or_init(|| {
        Nvml::init()
            .inspect_err(|error| tracing::debug!(%error, "no readings of GPUs: NVML cannot be loaded"))
            .ok()
    });
    let Some(nvml) = nvml else { return Vec::new() };
    let mut last = LAST.lock();
    if let Some((when, readings)) = &*last
        && when.elapsed() < FRESH
    {
        return readings.clone();
    }
    let readings = read_all(nvml);
    *last = Some((Instant::now(), readings.clone()));
    readings
}

fn read_all(nvml: &Nvml) -> Vec<GpuUse> {
    let driver = nvml.sys_driver_version().unwrap_or_default();
    let devices = 0..nvml.device_count().unwrap_or(0);
    let read = |index| Some(read(index, &driver, &nvml.device_by_index(index).ok()?));
    devices.filter_map(read).collect()
}

fn read(index: u32, driver: &str, device: &Device<'_>) -> GpuUse {
    let memory = device.memory_info().ok();
    let busy = device.utilization_rates().ok();
    let share = |percent: u32| f64::from(percent) / 100.0;
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    let hertz = |clock| Some(u64::from(device.clock_info(clock).ok()?) * 1_000_000);
    GpuUse {
        index,
        name: device.name().unwrap_or_default(),
        uuid: device.uuid().unwrap_or_default(),
        driver: driver.to_owned(),
        memory_total: memory.as_ref().map(|memory| memory.total),
        memory_used: memory.as_ref().map(|memory| memory.used),
        busy: busy.as_ref().map(|busy| share(busy.gpu)),
        memory_busy: busy.as_ref().map(|busy| share(busy.memory)),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        power: device.power_usage().ok().map(watts),
        power_limit: device.enforced_power_limit().ok().map(watts),
        clock: hertz(Clock::SM),
        memory_clock: hertz(Clock::Memory),
    }
}
