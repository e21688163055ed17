//! The layer of `models.toml`.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::draft::{Draft, MemoryDraft, ModelDraft, ServerDraft, Setting};
use super::path::Base;
use super::reader::Table;
use super::value::{self, Fault};
use crate::engine::SamplingOverrides;

/// What the text says, on top of the defaults. Mistakes go to `problems`; where they are, defaults stay.
pub(super) fn read(text: &str, base: &Base, problems: &Problems) -> Draft {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        report_syntax(&errors, problems);
        // What the parser makes of a broken text would only add riddles.
        return Draft::default();
    }
    let mut root = Table::root(&document, problems);
    let server = root.table("server", "[server]").map(server).unwrap_or_default();
    let memory = root.table("memory", "[memory]").map(memory).unwrap_or_default();
    let tables = root.tables("model", "[[model]]");
    // A `model` that is no list has been reported, and a misspelt one will be.
    let absent = root.origin_of("model").is_none();
    if tables.as_ref().is_some_and(Vec::is_empty) || absent {
        let message = "no model is configured";
        let hint = "add [[model]] with `name` and `path`; without any file hearth serves its built-in pair";
        problems.push(Diagnostic::error(&root.origin, message).hint(hint.to_owned()));
    }
    let models = tables
        .unwrap_or_default()
        .into_iter()
        .map(|table| model(table, base, problems))
        .collect();
    root.finish();
    Draft { server, memory, models }
}

fn report_syntax(errors: &[toml::de::Error], problems: &Problems) {
    // One mistake may be told several times by the parser: the first of each line is the one to mend.
    let mut lines = BTreeSet::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = problems.source().map(|source| source.line_column(span.start).0);
        if lines.insert(line) {
            let message = format!("not valid TOML: {}", error.message());
            problems.push(Diagnostic::error(&Origin::File(span), message));
        }
    }
}

fn server(mut table: Table<'_, '_>) -> ServerDraft {
    let default = ServerDraft::default();
    let server = ServerDraft {
        host: table.text("host", value::host).unwrap_or(default.host),
        port: table.integer("port", &value::PORT).unwrap_or(default.port),
        http_threads: table
            .integer("threads", &value::HTTP_THREADS)
            .unwrap_or(default.http_threads),
        body_limit: table
            .text("body_limit", value::body_limit)
            .unwrap_or(default.body_limit),
        shutdown_grace: table
            .text("shutdown_grace", value::duration)
            .unwrap_or(default.shutdown_grace),
        allowed_hosts: table
            .texts("allowed_hosts", value::allowed_host)
            .map_or(default.allowed_hosts, plain_texts),
        allowed_origins: table
            .texts("allowed_origins", value::allowed_origin)
            .map_or(default.allowed_origins, plain_texts),
        strict_models: table.flag("strict_models").unwrap_or(default.strict_models),
    };
    table.finish();
    server
}

fn plain_texts(texts: Setting<Vec<Setting<String>>>) -> Setting<Vec<String>> {
    texts.map(|texts| texts.into_iter().map(|text| text.value).collect())
}

fn memory(mut table: Table<'_, '_>) -> MemoryDraft {
    let default = MemoryDraft::default();
    let memory = MemoryDraft {
        vram: table.text("vram", value::memory).unwrap_or(default.vram),
        ram: table.text("ram", value::memory).unwrap_or(default.ram),
        headroom: table.text("headroom", value::memory).unwrap_or(default.headroom),
    };
    table.finish();
    memory
}

fn model(mut table: Table<'_, '_>, base: &Base, problems: &Problems) -> ModelDraft {
    let default = ModelDraft::default();
    table.require("name", "add name = \"...\": clients ask for the model by it");
    table.require("path", "add path = \"....gguf\", or path = \"demo:reasoner\" to try");
    let experts = table
        .table("experts", "[model.experts]")
        .map_or_else(ModelDraft::default, experts);
    let model = ModelDraft {
        name: table.text("name", value::name),
        role: table.text("role", value::name),
        aliases: table
            .texts("aliases", value::name)
            .map_or(default.aliases, |aliases| aliases.value),
        source: table.text("path", |text| base.source(text)),
        port: table.integer("port", &value::PORT),
        context: table
            .integer("context", &value::CONTEXT)
            .map_or(default.context, |context| context.map(Some)),
        parallel: table.integer("parallel", &value::PARALLEL).unwrap_or(default.parallel),
        threads: table
            .integer("threads", &value::THREADS)
            .map_or(default.threads, |threads| threads.map(Some)),
        queue: table.integer("queue", &value::QUEUE).unwrap_or(default.queue),
        kv_type: table.text("kv_type", value::kv_type).unwrap_or(default.kv_type),
        gpu_layers: table
            .integer("gpu_layers", &value::GPU_LAYERS)
            .map_or(default.gpu_layers, |layers| layers.map(Some)),
        placement: experts.placement,
        cache: experts.cache,
        device: experts.device,
        policy: experts.policy,
        sampling: table
            .table("sampling", "[model.sampling]")
            .map_or(default.sampling, |table| sampling(table, problems)),
    };
    table.finish();
    model
}

/// The keys of `experts` in a draft that holds nothing else.
fn experts(mut table: Table<'_, '_>) -> ModelDraft {
    let default = ModelDraft::default();
    let experts = ModelDraft {
        placement: table.text("placement", value::placement).unwrap_or(default.placement),
        cache: table.text("cache", value::cache_size).unwrap_or(default.cache),
        device: table.text("device", value::cache_device).unwrap_or(default.device),
        policy: table.text("policy", value::policy).unwrap_or(default.policy),
        ..ModelDraft::default()
    };
    table.finish();
    experts
}

/// Every key of [`SamplingOverrides`]; a test compares them with its schema.
fn sampling(mut table: Table<'_, '_>, problems: &Problems) -> Setting<SamplingOverrides> {
    const COUNT: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;
    const AT_LEAST_ONE: std::ops::RangeInclusive<i64> = 1..=i32::MAX as i64;
    const COUNT_OR_ALL: std::ops::RangeInclusive<i64> = -1..=i32::MAX as i64;
    let breaker = |text: &str| Ok::<_, Fault>(text.to_owned());
    let values = SamplingOverrides {
        temperature: table.float("temperature"),
        top_k: table.integer("top_k", &COUNT).map(|k| k.value),
        top_p: table.float("top_p"),
        min_p: table.float("min_p"),
        typical_p: table.float("typical_p"),
        repeat_penalty: table.float("repeat_penalty"),
        repeat_last_n: table.integer("repeat_last_n", &COUNT_OR_ALL).map(|n| n.value),
        presence_penalty: table.float("presence_penalty"),
        frequency_penalty: table.float("frequency_penalty"),
        dry_multiplier: table.float("dry_multiplier"),
        dry_base: table.float("dry_base"),
        dry_allowed_length: table.integer("dry_allowed_length", &COUNT).map(|n| n.value),
        dry_penalty_last_n: table.integer("dry_penalty_last_n", &COUNT_OR_ALL).map(|n| n.value),
        dry_sequence_breakers: table
            .texts("dry_sequence_breakers", breaker)
            .map(|breakers| breakers.value.into_iter().map(|text| text.value).collect()),
        xtc_probability: table.float("xtc_probability"),
        xtc_threshold: table.float("xtc_threshold"),
        top_n_sigma: table.float("top_n_sigma"),
        dynatemp_range: table.float("dynatemp_range"),
        dynatemp_exponent: table.float("dynatemp_exponent"),
        samplers: table
            .texts("samplers", value::sampler)
            .map(|samplers| samplers.value.into_iter().map(|sampler| sampler.value).collect()),
        seed: table.integer("seed", &(0..=i64::from(u32::MAX))).map(|n| n.value),
        max_tokens: table.integer("max_tokens", &AT_LEAST_ONE).map(|n| n.value),
    };
    for (field, message) in values.problems() {
        let origin = table.origin_of(field).unwrap_or(table.origin.clone());
        problems.push(Diagnostic::error(&origin, message));
    }
    let values = Setting::new(values, &table.origin);
    table.finish();
    values
}
