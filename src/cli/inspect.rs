//! `hearth inspect`: what is in a GGUF file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::json;

use super::output;
use crate::gguf::{Geometry, Gguf, Value, file_type_name, printable};
use crate::plan;

/// Arguments of `hearth inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; of a split model, its first part.
    file: PathBuf,

    /// List every tensor.
    #[arg(long)]
    tensors: bool,

    /// Print JSON, tensors included.
    #[arg(long)]
    json: bool,

    /// With --json, print long arrays such as the vocabulary, too.
    #[arg(long, requires = "json")]
    all: bool,
}

/// Bytes and weights of one part of the model.
#[derive(Debug, Default, Serialize)]
struct Component {
    tensors: usize,
    parameters: u64,
    bytes: u64,
    /// Bytes by data type.
    types: BTreeMap<&'static str, u64>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let gguf = Gguf::open(&args.file)?;
    let geometry = gguf.geometry()?;
    if args.json {
        return output::print_json(&as_json(&gguf, &geometry, args.all));
    }
    let mut out = io::stdout().lock();
    write_summary(&mut out, &gguf, &geometry)?;
    write_components(&mut out, &gguf, &geometry)?;
    write_metadata(&mut out, &gguf)?;
    if args.tensors {
        write_tensors(&mut out, &gguf)?;
    }
    Ok(())
}

fn components(gguf: &Gguf, geometry: &Geometry) -> BTreeMap<&'static str, Component> {
    let mut components: BTreeMap<&'static str, Component> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let part = components
            .entry(plan::Component::of(tensor, geometry).name())
            .or_default();
        part.tensors += 1;
        part.parameters += tensor.elements();
        part.bytes += tensor.bytes;
        *part.types.entry(tensor.kind.name).or_default() += tensor.bytes;
    }
    components
}

fn as_json(gguf: &Gguf, geometry: &Geometry, all: bool) -> serde_json::Value {
    let metadata: serde_json::Map<String, serde_json::Value> = gguf
        .metadata()
        .map(|(key, value)| (key.to_owned(), value_json(&value, all)))
        .collect();
    let tensors: Vec<serde_json::Value> = gguf
        .tensors()
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name, "type": tensor.kind.name, "shape": tensor.dims(),
                "part": tensor.part, "offset": tensor.offset, "bytes": tensor.bytes,
            })
        })
        .collect();
    json!({
        "path": gguf.path(), "parts": gguf.parts(), "version": gguf.version(),
        "parameters": gguf.parameters(), "bytes": gguf.size_bytes(),
        "file_type": geometry.file_type.and_then(file_type_name),
        "geometry": geometry, "components": components(gguf, geometry),
        "metadata": metadata, "tensors": tensors,
    })
}

/// A value as JSON; a long array only by its type and length, unless `all` is asked for.
fn value_json(value: &Value<'_>, all: bool) -> serde_json::Value {
    const MAX_LENGTH: usize = 64;
    match value {
        Value::Integer(number) => {
            i64::try_from(*number).map_or_else(|_| json!(number.to_string()), |number| json!(number))
        }
        Value::Float(number) => json!(number),
        Value::Bool(value) => json!(value),
        Value::String(text) => json!(text),
        Value::Array(array) if all || array.len <= MAX_LENGTH => {
            array.iter().map(|value| value_json(&value, all)).collect()
        }
        Value::Array(array) => json!({"type": array.element.name(), "length": array.len}),
    }
}

fn write_summary(out: &mut impl Write, gguf: &Gguf, geometry: &Geometry) -> io::Result<()> {
    let mut line = |what: &str, value: String| writeln!(out, "{what:<14} {}", printable(&value));
    line("model", geometry.name.clone().unwrap_or_else(|| "(no name)".into()))?;
    line("file", gguf.path().display().to_string())?;
    if gguf.parts() > 1 {
        line("parts", gguf.parts().to_string())?;
    }
    line("architecture", geometry.architecture.clone())?;
    line("parameters", count(gguf.parameters()))?;
    let mut size = output::bytes(gguf.size_bytes());
    if let Some(number) = geometry.file_type {
        let name = file_type_name(number).map_or_else(|| format!("file type {number}"), str::to_owned);
        size += &format!(", {name}");
    }
    line("size", size)?;
    line("context", format!("{} tokens", geometry.context))?;
    let mut layers = geometry.layers.to_string();
    if let Some(interval) = geometry.full_attention_interval {
        layers += &format!(", one in {interval} with full attention");
    }
    if geometry.mtp_layers > 0 {
        layers += &format!(", and {} for multi-token prediction", geometry.mtp_layers);
    }
    line("layers", layers)?;
    line("width", geometry.embedding.to_string())?;
    line(
        "attention",
        format!(
            "{} heads of {}, {} for keys and values",
            geometry.heads, geometry.key_length, geometry.kv_heads
        ),
    )?;
    if geometry.experts > 0 {
        // Some files give only the width of a shared expert, not their number.
        let shared = match geometry.shared_experts.max(u32::from(geometry.shared_feed_forward > 0)) {
            0 => String::new(),
            number => format!(" + {number} shared"),
        };
        line(
            "experts",
            format!(
                "{} per layer, {} per token{shared}, width {}",
                geometry.experts, geometry.experts_per_token, geometry.expert_feed_forward
            ),
        )?;
    }
    if let Some(ssm) = geometry.ssm {
        line(
            "state",
            format!(
                "{} key and {} value heads of {}, convolution of {}",
                ssm.group_count, ssm.time_step_rank, ssm.state_size, ssm.conv_kernel
            ),
        )?;
    }
    let tokenizer = &geometry.tokenizer;
    line(
        "vocabulary",
        format!(
            "{} tokens, {}{}",
            tokenizer.vocabulary,
            tokenizer.model,
            tokenizer.pre.as_ref().map(|pre| format!("/{pre}")).unwrap_or_default()
        ),
    )?;
    let template = match &tokenizer.chat_template {
        Some(template) => format!("{} characters", template.chars().count()),
        None => "none".into(),
    };
    line("chat template", template)
}

fn write_components(out: &mut impl Write, gguf: &Gguf, geometry: &Geometry) -> io::Result<()> {
    let mut table = table(&["component", "tensors", "parameters", "bytes", "types"]);
    let mut parts: Vec<_> = components(gguf, geometry).into_iter().collect();
    parts.sort_by_key(|(_, part)| std::cmp::Reverse(part.bytes));
    for (name, part) in parts {
        let types: Vec<&str> = part.types.keys().copied().collect();
        table.add_row([
            name.to_owned(),
            part.tensors.to_string(),
            count(part.parameters),
            output::bytes(part.bytes),
            types.join(" "),
        ]);
    }
    writeln!(out, "\n{table}")
}

fn write_metadata(out: &mut impl Write, gguf: &Gguf) -> io::Result<()> {
    let mut table = table(&["key", "value"]);
    for (key, value) in gguf.metadata() {
        table.add_row([printable(key), shorten(&value)]);
    }
    writeln!(out, "\n{table}")
}

fn write_tensors(out: &mut impl Write, gguf: &Gguf) -> io::Result<()> {
    let mut table = table(&["tensor", "type", "shape", "bytes"]);
    for tensor in gguf.tensors() {
        let shape: Vec<String> = tensor.dims().iter().map(u64::to_string).collect();
        table.add_row([
            printable(&tensor.name),
            tensor.kind.name.to_owned(),
            shape.join(" x "),
            output::bytes(tensor.bytes),
        ]);
    }
    writeln!(out, "\n{table}")
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    for (index, column) in table.column_iter_mut().enumerate() {
        if matches!(columns[index], "tensors" | "parameters" | "bytes") {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A value in one line.
fn shorten(value: &Value<'_>) -> String {
    const MAX_LENGTH: usize = 60;
    match value {
        Value::Integer(number) => number.to_string(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "nearly all are 32-bit numbers, and read best as such"
        )]
        Value::Float(number) => (*number as f32).to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Array(array) => format!("{}[{}]", array.element.name(), array.len),
        Value::String(text) => {
            let line = printable(text);
            match line.char_indices().nth(MAX_LENGTH) {
                Some((at, _)) => format!("{}... ({} characters)", &line[..at], text.chars().count()),
                None => line,
            }
        }
    }
}

/// A number of weights for people.
fn count(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let number = number as f64;
    match number {
        n if n >= 1e9 => format!("{:.2} B", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n}"),
    }
}
