//! The effective configuration, as a file that could have been written by hand.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::Loaded;
use super::diagnostic::Origin;
use super::section::{Entry, Section};

impl Loaded {
    /// The configuration as TOML; a comment on each line says where the value comes from.
    pub fn to_toml(&self) -> String {
        let mut out = match &self.file {
            Some(file) => format!("# read from {}\n", file.display()),
            None if self
                .partial
                .models
                .iter()
                .any(|model| model.source.origin == Origin::Default) =>
            {
                "# no file was read: these are the built-in models\n".to_owned()
            }
            None => "# no file was read: the models come from --model-path\n".to_owned(),
        };
        self.write_section(&mut out, "[server]", &self.partial.server.entries());
        self.write_section(&mut out, "[memory]", &self.partial.memory.entries());
        for model in &self.partial.models {
            self.write_section(&mut out, "[[model]]", &model.entries());
            self.write_section(&mut out, "[model.experts]", &model.experts.entries());
            self.write_section(&mut out, "[model.draft]", &model.draft.entries());
            self.write_section(&mut out, "[model.rope]", &model.rope.entries());
            for upstream in &model.upstream.0 {
                self.write_section(&mut out, "[[model.upstream]]", &upstream.entries());
            }
            let sampling = model.sampling.entries();
            if !sampling.is_empty() {
                self.write_section(&mut out, "[model.sampling]", &sampling);
            }
        }
        for preset in &self.partial.presets {
            self.write_section(&mut out, "[[preset]]", &preset.entries());
            let sampling = preset.sampling.entries();
            if !sampling.is_empty() {
                self.write_section(&mut out, "[preset.sampling]", &sampling);
            }
        }
        for key in &self.partial.keys {
            self.write_section(&mut out, "[[key]]", &key.entries());
        }
        out
    }

    /// The same for programs; keys that have no value are null.
    pub fn to_json(&self) -> Value {
        let models = self.partial.models.iter().map(|model| {
            let mut table = object(model.entries());
            table.insert("experts".to_owned(), object(model.experts.entries()).into());
            table.insert("draft".to_owned(), object(model.draft.entries()).into());
            table.insert("rope".to_owned(), object(model.rope.entries()).into());
            let servers = model
                .upstream
                .0
                .iter()
                .map(|upstream| object(upstream.entries()).into());
            table.insert("upstream".to_owned(), Value::Array(servers.collect()));
            table.insert("sampling".to_owned(), object(model.sampling.entries()).into());
            Value::Object(table)
        });
        let presets = self.partial.presets.iter().map(|preset| {
            let mut table = object(preset.entries());
            table.insert("sampling".to_owned(), object(preset.sampling.entries()).into());
            Value::Object(table)
        });
        json!({
            "file": self.file,
            "server": object(self.partial.server.entries()),
            "memory": object(self.partial.memory.entries()),
            "model": models.collect::<Vec<_>>(),
            "preset": presets.collect::<Vec<_>>(),
            "key": self.partial.keys.iter().map(|key| object(key.entries())).collect::<Vec<_>>(),
            "warnings": self.warnings.to_json(),
        })
    }

    fn write_section(&self, out: &mut String, header: &str, entries: &[Entry<'_>]) {
        let line = |entry: &Entry<'_>| match &entry.value {
            Ok(value) => format!("{} = {}", entry.key, toml_text(value)),
            Err(instead) => format!("# {} = {instead}", entry.key),
        };
        let lines: Vec<String> = entries.iter().map(line).collect();
        // Aligned, but one long path must not push all comments away.
        let short = lines
            .iter()
            .map(|line| line.chars().count())
            .filter(|&width| width <= 48);
        let width = short.max().unwrap_or(0);
        let _ = writeln!(out, "\n{header}");
        for (line, entry) in lines.iter().zip(entries) {
            let _ = writeln!(out, "{line:width$}  # {}", self.origin_text(entry.origin));
        }
    }

    fn origin_text(&self, origin: &Origin) -> String {
        match (origin, self.warnings.source_file()) {
            (Origin::File(span), Some(source)) => format!("line {}", source.line_column(span.start).0),
            (Origin::Variable(name) | Origin::Flag(name), _) => name.clone(),
            _ => "default".to_owned(),
        }
    }
}

fn object(entries: Vec<Entry<'_>>) -> Map<String, Value> {
    entries
        .into_iter()
        .map(|entry| (entry.key.to_owned(), entry.value.unwrap_or(Value::Null)))
        .collect()
}

/// A value as it stands in the file.
pub(super) fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}
