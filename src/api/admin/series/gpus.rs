//! The GPUs, as NVIDIA's driver reports them; no series without it.

use prometheus::proto::MetricFamily;

use super::{collect, gauge};
use crate::host;

pub(super) fn families() -> Vec<MetricFamily> {
    let of_gpu = &["gpu"];
    let about = gauge(
        "hearth_gpu_info",
        "A GPU of this machine: always 1, the labels say which.",
        &["gpu", "name", "uuid", "driver"],
    );
    let total = gauge("hearth_gpu_memory_total_bytes", "Memory of the GPU.", of_gpu);
    let used = gauge(
        "hearth_gpu_memory_used_bytes",
        "Memory of the GPU that is in use, by all processes.",
        of_gpu,
    );
    let busy = gauge(
        "hearth_gpu_utilization_ratio",
        "Share of the time in which a kernel ran, 0 to 1.",
        of_gpu,
    );
    let memory_busy = gauge(
        "hearth_gpu_memory_utilization_ratio",
        "Share of the time in which memory was read or written, 0 to 1.",
        of_gpu,
    );
    let temperature = gauge("hearth_gpu_temperature_celsius", "Temperature of the GPU.", of_gpu);
    let power = gauge("hearth_gpu_power_watts", "Power that the GPU draws.", of_gpu);
    let power_limit = gauge("hearth_gpu_power_limit_watts", "Power that the GPU may draw.", of_gpu);
    let clock = gauge("hearth_gpu_clock_hertz", "Clock of the multiprocessors.", of_gpu);
    let memory_clock = gauge("hearth_gpu_memory_clock_hertz", "Clock of the memory.", of_gpu);
    for gpu in host::gpu_use() {
        let number = gpu.index.to_string();
        let labels = [&number, &gpu.name, &gpu.uuid, &gpu.driver];
        about.with_label_values(&labels).set(1.0);
        let float = |number: Option<u64>| number.map(|number| number as f64);
        for (family, reading) in [
            (&total, float(gpu.memory_total)),
            (&used, float(gpu.memory_used)),
            (&busy, gpu.busy),
            (&memory_busy, gpu.memory_busy),
            (&temperature, gpu.temperature.map(f64::from)),
            (&power, gpu.power),
            (&power_limit, gpu.power_limit),
            (&clock, float(gpu.clock)),
            (&memory_clock, float(gpu.memory_clock)),
        ] {
            if let Some(reading) = reading {
                family.with_label_values(&[&number]).set(reading);
            }
        }
    }
    let families = [
        about,
        total,
        used,
        busy,
        memory_busy,
        temperature,
        power,
        power_limit,
        clock,
        memory_clock,
    ];
    collect(&families).collect()
}
