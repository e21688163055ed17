//! The tables of docs/configuration.md.

use std::fmt::Write;

use super::keys::keys;
use super::section::Key;
use super::show::toml_text;

/// All keys but those of `[model.sampling]` as Markdown: for each table of `models.toml` a heading and a table.
#[must_use]
pub fn keys_as_markdown() -> String {
    let keys = keys();
    let mut out = String::new();
    for of_table in keys.chunk_by(|a, b| a.table == b.table) {
        let table = of_table.first().map_or("", |key| key.table);
        let _ = write!(
            out,
            "### `{table}`\n\n| key | default | variable, flag | meaning |\n|---|---|---|---|\n"
        );
        for key in of_table {
            let _ = writeln!(out, "{}", row(key));
        }
        out.push('\n');
    }
    out
}

fn row(key: &Key) -> String {
    let default = match &key.default {
        Ok(value) => format!("`{}`", toml_text(value)),
        Err(instead) => (*instead).to_owned(),
    };
    let set_by: Vec<String> = [key.variable, key.flag.map(|(flag, _)| flag)]
        .into_iter()
        .flatten()
        .map(|name| format!("`{name}`"))
        .collect();
    let range = key
        .range
        .as_ref()
        .map(|range| format!(" ({range})"))
        .unwrap_or_default();
    format!(
        "| `{}` | {default} | {} | {}{range} |",
        key.name,
        set_by.join(", "),
        key.doc
    )
}
