//! The layer of `models.toml`.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::keys::{FileKeys, PartialConfig, PartialKey, PartialModel, PartialPreset, PartialServer};
use super::path::Base;
use super::reader::Table;
use super::sampling::PartialSampling;
use super::section::Section;
use super::setting::Setting;
use super::types::ModelSource;
use super::upstream::PartialUpstreams;

/// What the text says, on top of the defaults. Mistakes go to `problems`; where they are, defaults stay.
pub(super) fn read(text: &str, base: &Base, problems: &Problems) -> PartialConfig {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        report_syntax(&errors, problems);
        // What the parser makes of a broken text would only add riddles.
        return PartialConfig::default();
    }
    let mut root = Table::root(&document, problems);
    let mut server: PartialServer = section(root.table("server", "[server]"));
    for (path, key) in [
        (&mut server.slot_save_path, "slot_save_path"),
        (&mut server.api_key_file, "api_key_file"),
        (&mut server.tls_certificate, "tls_certificate"),
        (&mut server.tls_key, "tls_key"),
    ] {
        base.anchor_folder(path, key, problems);
    }
    let memory = section(root.table("memory", "[memory]"));
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
    let presets = root.tables("preset", "[[preset]]").unwrap_or_default();
    let presets = presets.into_iter().map(|table| preset(table, problems)).collect();
    let keys = root.tables("key", "[[key]]").unwrap_or_default();
    let keys = keys.into_iter().map(|table| {
        if table.origin_of("key_env").is_none() {
            table.require(
                "key",
                "add key = \"...\", or key_env = \"...\" with the name of a variable",
            );
        }
        section(Some(table))
    });
    let keys: Vec<PartialKey> = keys.collect();
    root.finish();
    PartialConfig {
        server,
        memory,
        models,
        presets,
        keys,
        file_keys: FileKeys::default(),
    }
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

/// A table without further ones below it.
fn section<S: Section>(table: Option<Table<'_, '_>>) -> S {
    let mut section = S::default();
    if let Some(mut table) = table {
        section.read(&mut table);
        table.finish();
    }
    section
}

fn model(mut table: Table<'_, '_>, base: &Base, problems: &Problems) -> PartialModel {
    let mut model = PartialModel::default();
    model.read(&mut table);
    base.anchor(&mut model.source, "path", problems);
    base.read_template(&mut model.chat_template, problems);
    model.experts = section(table.table("experts", "[model.experts]"));
    model.draft = section(table.table("draft", "[model.draft]"));
    base.anchor_other(&mut model.draft.path, "path", problems);
    model.rope = section(table.table("rope", "[model.rope]"));
    if let Some((servers, origin)) = PartialUpstreams::read(&mut table, problems) {
        model.upstream = servers;
        model.source = Setting::new(ModelSource::Upstream, &origin);
    }
    if let Some(sampling) = table.table("sampling", "[model.sampling]") {
        model.sampling = PartialSampling::read(sampling, problems);
    }
    table.finish();
    model
}

fn preset(mut table: Table<'_, '_>, problems: &Problems) -> PartialPreset {
    let mut preset = PartialPreset::default();
    preset.read(&mut table);
    if let Some(sampling) = table.table("sampling", "[preset.sampling]") {
        preset.sampling = PartialSampling::read(sampling, problems);
    }
    table.finish();
    preset
}
