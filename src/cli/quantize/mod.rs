//! `hearth quantize`: makes a smaller file of a GGUF file, with llama.cpp.

mod importance;
mod types;
mod worker;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use indicatif::ProgressStyle;
use serde::Serialize;

use super::output::{self, Usage};
use crate::files;
use crate::gguf::{Geometry, Gguf};
use crate::host::{free_bytes, memory, physical_cores};
use crate::llama::quantize::{Quantization, quantize};
use crate::report::Table;
use types::{TARGETS, Target};
use worker::{Stopped, Told};

/// llama.cpp's own limit on rows in memory.
const BUFFER: u64 = 8 << 30;
/// What names of unfinished results begin with.
const UNFINISHED: &str = ".quantizing-";
/// Exit code of what Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Arguments of `hearth quantize`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to read, best in f16 or bf16; of a split model, its first part.
    #[arg(required_unless_present = "list")]
    input: Option<PathBuf>,

    /// The file to write.
    #[arg(required_unless_present = "list")]
    output: Option<PathBuf>,

    /// What to quantize to, such as q4_k_m, q8_0 or mxfp4; --list shows all.
    #[arg(long = "type", short, value_name = "TYPE", value_parser = parse_target, required_unless_present = "list")]
    target: Option<&'static Target>,

    /// List the types.
    #[arg(long)]
    list: bool,

    /// Importance matrix, as llama-imatrix writes it (GGUF): small types lose less with one.
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,

    /// Threads [default: one per physical core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Tell the size, and write nothing.
    #[arg(long)]
    dry_run: bool,

    /// Take a file that is quantized already, although that loses more.
    #[arg(long)]
    allow_requantize: bool,

    /// Replace a file that is there.
    #[arg(long)]
    force: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    /// Do the work in this process.
    #[arg(long, hide = true)]
    worker: bool,
}

fn parse_target(text: &str) -> Result<&'static Target, String> {
    Target::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        format!("known are {}", names.join(", "))
    })
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Quantized<'q> {
    /// `None` after a dry run.
    path: Option<&'q Path>,
    r#type: &'static str,
    /// Of all tensors.
    bytes_before: u64,
    /// Of all tensors; after a dry run as llama.cpp predicts it.
    bytes: u64,
    bits_per_weight: f64,
    /// Tensors whose rows did not fit into blocks of their type, and got a larger one.
    fallbacks: u32,
    seconds: f64,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (Some(input), Some(to), Some(target), false) = (&args.input, &args.output, args.target, args.list) else {
        list(args.json)?;
        return Ok(ExitCode::SUCCESS);
    };
    if args.worker {
        return work(&args, input, to, target);
    }
    let gguf = Gguf::open(input)?;
    let geometry = gguf.geometry()?;
    check(&args, &gguf, to, target)?;
    match convert(&args, &gguf, &geometry, to, target) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<Stopped>() => {
            eprintln!("{error}");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => Err(error),
    }
}

/// What can be said before anything is computed.
fn check(args: &Args, gguf: &Gguf, to: &Path, target: &Target) -> anyhow::Result<()> {
    if worker::same_file(gguf.path(), to) {
        return Err(Usage(format!("{} cannot be read and written at once", to.display())).into());
    }
    if to.exists() && !args.force && !args.dry_run {
        bail!("{} is there already; --force replaces it", to.display());
    }
    if target.needs_importance && args.imatrix.is_none() && !args.dry_run {
        bail!(
            "{} needs an importance matrix: --imatrix FILE\n  hint: `llama-imatrix -m MODEL -f TEXT -o FILE.gguf` makes one, and \
             many repositories have one; iq4_xs and q3_k_m need none",
            target.name
        );
    }
    let quantized = gguf.tensors().iter().find(|tensor| tensor.kind.block > 1);
    if let Some(tensor) = quantized.filter(|_| !args.allow_requantize) {
        bail!(
            "{} is quantized already ({} is {})\n  hint: take the file in f16 or bf16; --allow-requantize takes this one, and loses more",
            gguf.path().display(),
            tensor.name,
            tensor.kind.name
        );
    }
    if let Some(path) = &args.imatrix {
        importance::read(path)?;
    }
    Ok(())
}

fn convert(args: &Args, gguf: &Gguf, geometry: &Geometry, to: &Path, target: &Target) -> anyhow::Result<()> {
    let start = Instant::now();
    let input = gguf.path();
    if target.own_type().is_some() && geometry.experts == 0 {
        eprintln!(
            "note: the model has no experts; its feed-forward networks become {}",
            target.base
        );
    }
    // What llama.cpp would write, to the hundredth of a MiB.
    let planned = run_worker(args, input, to, target, true, |_| ())?;
    let bytes = planned.size.map_or(0, from_mib);
    let report = |path, bytes, told: Told| Quantized {
        path,
        r#type: target.name,
        bytes_before: gguf.size_bytes(),
        bytes,
        bits_per_weight: told.bits.unwrap_or(0.0),
        fallbacks: told.fallbacks,
        seconds: start.elapsed().as_secs_f64(),
    };
    if args.dry_run {
        return print(args, &report(None, bytes, planned));
    }
    let folder = to
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."));
    let needed = bytes + gguf.header_bytes().len() as u64;
    if let Some(free) = free_bytes(to).filter(|free| *free < needed) {
        bail!(
            "{} are needed in {}, but its disk has {} free",
            output::bytes(needed),
            folder.display(),
            output::bytes(free)
        );
    }
    files::remove_abandoned(folder, UNFINISHED);
    // Removed when it is dropped, whatever happens; unless this process is killed.
    let part = files::claimed(folder, UNFINISHED).with_context(|| format!("cannot write to {}", folder.display()))?;
    let bar = output::progress_bar(gguf.size_bytes(), &format!("quantizing to {}", target.name));
    let style = "{msg} {bar:40} {bytes}/{total_bytes} {eta}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let told = run_worker(args, input, part.path(), target, false, |done| {
        bar.set_position(from_mib(done))
    });
    bar.finish_and_clear();
    let told = told?;
    let written = Gguf::open(part.path()).context("what llama.cpp wrote is damaged")?;
    let bytes = written.size_bytes();
    drop(written);
    let name = to.file_name().unwrap_or_default();
    files::publish(part, folder, Path::new(name)).with_context(|| format!("cannot write {}", to.display()))?;
    print(args, &report(Some(to), bytes, told))
}

fn print(args: &Args, done: &Quantized<'_>) -> anyhow::Result<()> {
    if args.json {
        return output::print_json(done);
    }
    let mut out = std::io::stdout().lock();
    let what = format!(
        "{} -> {} ({}, {:.2} bits per weight)",
        output::bytes(done.bytes_before),
        output::bytes(done.bytes),
        done.r#type,
        done.bits_per_weight
    );
    if done.fallbacks > 0 {
        eprintln!(
            "note: {} tensors have rows that do not fit into blocks of their type, and got a larger one",
            done.fallbacks
        );
    }
    match done.path {
        Some(path) => writeln!(out, "{}: {what} in {:.1} s", path.display(), done.seconds)?,
        None => writeln!(out, "would be {what}")?,
    }
    Ok(())
}

/// The same command in a process of its own.
fn run_worker(
    args: &Args,
    input: &Path,
    to: &Path,
    target: &Target,
    dry_run: bool,
    progress: impl FnMut(f64) + Send,
) -> anyhow::Result<Told> {
    let threads = args.threads.unwrap_or_else(physical_cores).to_string();
    let mut arguments: Vec<&OsStr> = vec![OsStr::new("--worker"), OsStr::new("--threads"), threads.as_ref()];
    arguments.extend([OsStr::new("--type"), OsStr::new(target.name)]);
    for (given, flag) in [(dry_run, "--dry-run"), (args.allow_requantize, "--allow-requantize")] {
        if given {
            arguments.push(OsStr::new(flag));
        }
    }
    if let Some(path) = &args.imatrix {
        arguments.extend([OsStr::new("--imatrix"), path.as_os_str()]);
    }
    // Names may begin with a dash.
    arguments.extend([OsStr::new("--"), input.as_os_str(), to.as_os_str()]);
    worker::run(&arguments, progress)
}

/// What the process of its own does.
fn work(args: &Args, input: &Path, to: &Path, target: &Target) -> anyhow::Result<ExitCode> {
    let gguf = Gguf::open(input)?;
    let pattern = if gguf.geometry()?.experts > 0 {
        c"_exps\\.weight"
    } else {
        c"ffn_(gate|up|down)\\.weight"
    };
    let types: Vec<_> = target.own_type().map(|kind| (pattern, kind)).into_iter().collect();
    let importance = args
        .imatrix
        .as_deref()
        .map(importance::read)
        .transpose()?
        .unwrap_or_default();
    let job = Quantization {
        input,
        output: to,
        file_type: target.asked(),
        types: &types,
        called: target.own_type().map(|_| target.file_type),
        threads: args.threads.unwrap_or(1),
        importance: &importance,
        again: args.allow_requantize,
        dry_run: args.dry_run,
        buffer: BUFFER.min(memory().available / 3).max(64 << 20),
    };
    Ok(match quantize(&job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn list(json: bool) -> anyhow::Result<()> {
    if json {
        let types = TARGETS.iter().map(|target| {
            serde_json::json!({
                "type": target.name, "bits_per_weight": target.bits(), "needs_imatrix": target.needs_importance,
                "about": target.about,
            })
        });
        return output::print_json(&types.collect::<Vec<_>>());
    }
    let rows = TARGETS.iter().map(|target| {
        let needs = if target.needs_importance { "needs one" } else { "-" };
        vec![
            target.name.to_owned(),
            format!("{:.2}", target.bits()),
            needs.to_owned(),
            target.about.to_owned(),
        ]
    });
    let table = output::listing(Table {
        header: ["type", "bits", "imatrix", ""].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    });
    writeln!(
        std::io::stdout().lock(),
        "{table}\n\nbits: of most weights; the most sensitive tensors get more"
    )?;
    Ok(())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size that llama.cpp printed"
)]
fn from_mib(size: f64) -> u64 {
    (size * 1024.0 * 1024.0) as u64
}
