//! `hearth advise`: which quantization of a model fits which machine.

mod rate;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use super::described;
use super::output::{self, Usage};
use crate::config::{MemoryConfig, ModelConfig, ModelSource};
use crate::gguf::{Gguf, file_type_name};
use crate::host::Machine;
use crate::models;
use crate::report::Table;
use crate::synthetic::{Arch, Mix, Shape, Synthetic};
use rate::{Choice, Level, choose, levels, native};

/// Arguments of `hearth advise`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("model").required(true)))]
pub(super) struct Args {
    /// A file of the model, in any quantization. Its header is enough.
    #[arg(long, value_name = "FILE", group = "model")]
    gguf: Option<PathBuf>,

    /// A model by its size: 80b-a3b (Qwen3-Next), 30b-a3b (Qwen3), 20b and 120b (gpt-oss), mag-mell-12b (Mistral-Nemo).
    #[arg(long, value_name = "NAME", group = "model")]
    params: Option<String>,

    #[command(flatten)]
    machine: described::Args,

    /// Tokens per sequence that must fit [default: as `hearth plan` chooses].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(32..=4_194_304))]
    context: Option<u32>,

    /// Sequences at once that must fit [default: as `hearth plan` chooses].
    #[arg(long, value_name = "SLOTS", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: Option<u32>,

    /// Tokens per second that are wanted at least.
    #[arg(long, value_name = "TOKENS")]
    speed: Option<f64>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Advice<'a> {
    model: &'a str,
    parameters: u64,
    machine: &'a Machine,
    levels: &'a [Level],
    recommended: &'a Choice,
    commands: Vec<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if args.speed.is_some_and(|speed| !speed.is_finite() || speed <= 0.0) {
        return Err(Usage("--speed must be a number above 0".into()).into());
    }
    let machine = args.machine.machine(&MemoryConfig::default())?;
    match (&args.gguf, &args.params) {
        (Some(path), _) => advise(&args, path, None, &machine),
        (None, Some(name)) => {
            let shape = shape(name)?;
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("model.gguf");
            let synthetic = Synthetic {
                header_only: true,
                ..Synthetic::new(shape.clone(), Mix::from_name("f16")?)
            };
            synthetic.write(&path, |_, _| ())?;
            advise(&args, &path, Some(&shape), &machine)
        }
        (None, None) => Err(Usage("--gguf or --params says which model".into()).into()),
    }
}

/// A known shape, by its name.
fn shape(name: &str) -> anyhow::Result<Shape> {
    let known = Arch::value_variants().iter().flat_map(|arch| Shape::presets(*arch));
    let known: Vec<(&str, Shape)> = known.filter(|(name, _)| *name != "tiny").collect();
    let wanted = name.to_lowercase();
    let found = known.iter().find(|(name, _)| *name == wanted);
    let Some((_, shape)) = found else {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "there is no known model `{name}`; known are {}\n  hint: --gguf takes any model's file",
            names.join(", ")
        );
        return Err(Usage(message).into());
    };
    // As the published files have it.
    let mtp = shape.arch == Arch::Qwen3next;
    Ok(Shape {
        mtp,
        name: shape.name.replace(" shape, random weights", ""),
        ..shape.clone()
    })
}

fn advise(args: &Args, path: &Path, known: Option<&Shape>, machine: &Machine) -> anyhow::Result<()> {
    let config = ModelConfig {
        context: args.context,
        parallel: args.parallel,
        ..ModelConfig::new(short_name(args, path), ModelSource::File(path.to_owned()))
    };
    let prepared = models::prepare(&config)?;
    let requests = models::requests(std::slice::from_ref(&prepared), machine)?;
    let gguf = &prepared.gguf;
    let mut levels = levels(gguf, &requests[0], machine, &MemoryConfig::default())?;
    let geometry = gguf.geometry()?;
    let choice = choose(&mut levels, args.speed, native(&geometry.architecture));
    let name = geometry.name.clone().unwrap_or_else(|| path.display().to_string());
    let advice = Advice {
        model: &name,
        parameters: gguf.parameters(),
        machine,
        commands: commands(&choice, gguf, known),
        levels: &levels,
        recommended: &choice,
    };
    if args.json {
        return output::print_json(&advice);
    }
    let file = known
        .is_none()
        .then(|| geometry.file_type.and_then(file_type_name))
        .flatten();
    print(&advice, file)
}

/// What messages call the model.
fn short_name(args: &Args, path: &Path) -> String {
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    args.params.clone().or_else(stem).unwrap_or_else(|| "model".to_owned())
}

/// How to get what is recommended.
fn commands(choice: &Choice, gguf: &Gguf, known: Option<&Shape>) -> Vec<String> {
    let Some(name) = choice.r#type else { return Vec::new() };
    let pull = format!("hearth pull hf:OWNER/REPO-GGUF:{}", name.to_uppercase());
    let exact = gguf.tensors().iter().all(|tensor| tensor.kind.block == 1);
    if known.is_some() || !exact {
        return vec![pull];
    }
    let input = gguf.path().to_string_lossy().into_owned();
    let stem = gguf.path().file_stem().unwrap_or_default().to_string_lossy();
    let output = gguf.path().with_file_name(format!("{stem}-{name}.gguf"));
    let words = ["hearth", "quantize", &input, &output.to_string_lossy(), "--type", name];
    vec![output::command_line(words.into_iter().map(str::to_owned)), pull]
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn print(advice: &Advice<'_>, file: Option<&str>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let machine = advice.machine;
    let ram = output::bytes(machine.ram_total);
    match machine.gpu().map(|gpu| &machine.devices[gpu]) {
        None => writeln!(out, "machine: no GPU, RAM {ram}")?,
        Some(gpu) if gpu.unified => writeln!(out, "machine: {} with {ram} of unified memory", gpu.name)?,
        Some(gpu) => writeln!(out, "machine: {} {}, RAM {ram}", gpu.name, output::bytes(gpu.total))?,
    }
    let file = file.map_or_else(String::new, |file| format!(" (this file: {file})"));
    writeln!(
        out,
        "model: {}, {:.1} B parameters{file}\n",
        advice.model,
        advice.parameters as f64 / 1e9
    )?;
    let rows = advice.levels.iter().map(|level| {
        let none = || "-".to_owned();
        let fit = level.fit.as_ref();
        let mark = if level.recommended { "->" } else { "" };
        vec![
            mark.to_owned(),
            level.r#type.to_owned(),
            if level.like.is_empty() {
                none()
            } else {
                level.like.to_owned()
            },
            format!("{:.2}", level.bits_per_weight),
            output::bytes(level.bytes),
            fit.map_or_else(none, |fit| format!("{} x {}", fit.slots, fit.context)),
            fit.map_or_else(none, |fit| format!("{:.1}", fit.tokens_per_second)),
            fit.map_or_else(none, |fit| format!("{:.1} s", fit.first_token)),
            fit.map_or_else(|| "does not fit".to_owned(), |fit| fit.placement.clone()),
        ]
    });
    let header = [
        "",
        "type",
        "like",
        "bits",
        "size",
        "context",
        "tokens/s",
        "first token",
        "where",
    ];
    let table = output::listing(Table {
        header: header.map(str::to_owned).to_vec(),
        rows: rows.collect(),
    });
    writeln!(out, "{table}\n")?;
    match advice.recommended.r#type {
        Some(name) => writeln!(out, "recommended: {name}, {}", advice.recommended.why)?,
        None => writeln!(out, "{}", advice.recommended.why)?,
    }
    for command in &advice.commands {
        writeln!(out, "  {command}")?;
    }
    let first = advice
        .levels
        .iter()
        .rev()
        .find_map(|level| Some((level, level.problem.as_ref()?)));
    if let Some((level, problem)) = first {
        writeln!(out, "{} does not fit: {problem}", level.r#type)?;
    }
    writeln!(
        out,
        "\nSpeeds are estimates for one stream; the first token is that of a prompt of 2,048. `hearth plan` shows the details."
    )?;
    Ok(())
}
