//! The process that quantizes: llama.cpp may end it, and Ctrl-C must.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;

/// Lines of llama.cpp that are kept for a message.
const LAST: usize = 200;
const LOOK: Duration = Duration::from_millis(50);

/// What llama.cpp said of the result.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Told {
    /// MiB of all tensors, as it prints them.
    pub(super) size: Option<f64>,
    pub(super) bits: Option<f64>,
    /// Tensors whose rows did not fit into blocks of the type.
    pub(super) fallbacks: u32,
}

/// It was asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; nothing was written")]
pub(super) struct Stopped;

/// Runs this program with these arguments; `progress` is told the MiB that are done.
pub(super) fn run(arguments: &[&std::ffi::OsStr], mut progress: impl FnMut(f64) + Send) -> anyhow::Result<Told> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut registered = Vec::new();
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        registered.push(signal_hook::flag::register(signal, stop.clone())?);
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program)
        .arg("quantize")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a process for quantizing")?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let lines = Mutex::new(Vec::<String>::new());
    let told = Mutex::new(Told::default());
    let keep = |line: &str| {
        let mut lines = lines.lock();
        if lines.len() == LAST {
            lines.remove(0);
        }
        lines.push(line.to_owned());
    };
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut done = 0.0;
            read_lines(out, |line| {
                keep(line);
                read_line(line, &mut told.lock());
                if let Some(size) = size_of_tensor(line) {
                    done += size;
                    progress(done);
                }
            });
        });
        scope.spawn(|| read_lines(err, keep));
        loop {
            if stop.load(Ordering::Relaxed) {
                let _ = child.kill();
            }
            match child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                Ok(Some(status)) => return Ok(status),
                Err(error) => {
                    let _ = child.kill();
                    return Err(error);
                }
            }
        }
    })?;
    for registered in registered {
        signal_hook::low_level::unregister(registered);
    }
    if stop.load(Ordering::Relaxed) {
        return Err(Stopped.into());
    }
    if !status.success() {
        bail!(
            "llama.cpp could not quantize the file: {}",
            reason(&lines.lock(), status)
        );
    }
    Ok(told.into_inner())
}

/// Calls `each` with every line; what is not UTF-8 is replaced.
fn read_lines(from: Option<impl Read>, mut each: impl FnMut(&str)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        each(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// MiB of a tensor that is done: `[   3/  42] NAME - [...], type = f16, converting to q8_0 .. size =     0.25 MiB -> ...`.
fn size_of_tensor(line: &str) -> Option<f64> {
    let rest = line.trim_start().strip_prefix('[')?;
    let (_, rest) = rest.split_once("size =")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `llama_model_quantize_impl: quant size  =   123.45 MiB (4.89 BPW)`, and the number of fallbacks.
fn read_line(line: &str, told: &mut Told) {
    if let Some((_, rest)) = line.split_once("quant size") {
        let numbers = rest.split(['=', '(', ' ']).filter_map(|word| word.parse::<f64>().ok());
        let mut numbers = numbers;
        told.size = numbers.next();
        told.bits = numbers.next();
    }
    if let Some((before, _)) = line.split_once("tensor(s) required fallback") {
        let first = before
            .split("WARNING:")
            .nth(1)
            .and_then(|text| text.split_whitespace().next());
        told.fallbacks = first.and_then(|text| text.parse().ok()).unwrap_or(0);
    }
}

/// Why it failed, in llama.cpp's own words.
fn reason(lines: &[String], status: std::process::ExitStatus) -> String {
    let said = lines
        .iter()
        .rev()
        .find_map(|line| line.split_once("failed to quantize: ").map(|(_, why)| why.to_owned()));
    let asserted = || lines.iter().rev().find(|line| line.contains("GGML_ASSERT")).cloned();
    let last = || lines.iter().rev().find(|line| !line.is_empty()).cloned();
    match said.or_else(asserted).or_else(last) {
        Some(line) => line.trim().to_owned(),
        None => status.to_string(),
    }
}

/// Whether two paths are of one file.
pub(super) fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_llama_cpp_are_read() {
        let line = "[   3/  42] blk.0.attn_q.weight                  - [  256,   256,     1,     1], type =    f16, converting to q8_0 .. size =     0.12 MiB ->     0.07 MiB";
        assert_eq!(size_of_tensor(line), Some(0.12));
        assert_eq!(
            size_of_tensor("llama_model_quantize_impl: model size  =     3.28 MiB (16.01 BPW)"),
            None
        );
        let mut told = Told::default();
        for line in [
            "llama_model_quantize_impl: quant size  =     1.75 MiB (8.51 BPW)",
            "llama_model_quantize_impl: WARNING: 7 of 30 tensor(s) required fallback quantization",
        ] {
            read_line(line, &mut told);
        }
        assert_eq!(
            told,
            Told {
                size: Some(1.75),
                bits: Some(8.51),
                fallbacks: 7
            }
        );
    }
}
