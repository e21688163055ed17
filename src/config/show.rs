//! The effective configuration, as a file that could have been written by hand.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::Loaded;
use super::diagnostic::Origin;
use super::draft::ModelDraft;
use super::types::MemoryLimit;
use super::{path, value};
use crate::experts::policy::PolicyKind;

/// A key with its value and origin; without a value, what happens then.
struct Entry<'d> {
    key: Cow<'static, str>,
    value: Result<Value, &'static str>,
    origin: &'d Origin,
}

fn entry<'d>(key: impl Into<Cow<'static, str>>, value: impl Into<Value>, origin: &'d Origin) -> Entry<'d> {
    Entry {
        key: key.into(),
        value: Ok(value.into()),
        origin,
    }
}

/// A key that has no value; `instead` says what that means.
fn absent(key: &'static str, instead: &'static str) -> Entry<'static> {
    Entry {
        key: key.into(),
        value: Err(instead),
        origin: &Origin::Default,
    }
}

fn memory_text(limit: MemoryLimit) -> String {
    match limit {
        MemoryLimit::Auto => "auto".to_owned(),
        MemoryLimit::Bytes(bytes) => value::size_text(bytes),
    }
}

impl Loaded {
    /// The configuration as TOML; a comment on each line says where the value comes from.
    pub fn to_toml(&self) -> String {
        let mut out = match &self.file {
            Some(file) => format!("# read from {}\n", file.display()),
            None if self.draft.models.iter().any(|model| model.is_default()) => {
                "# no file was read: these are the built-in models\n".to_owned()
            }
            None => "# no file was read: the models come from --model-path\n".to_owned(),
        };
        self.write_section(&mut out, "[server]", &self.server());
        self.write_section(&mut out, "[memory]", &self.memory());
        for model in &self.draft.models {
            self.write_section(&mut out, "[[model]]", &model.entries());
            self.write_section(&mut out, "[model.experts]", &model.experts_entries());
            let sampling = model.sampling_entries();
            if !sampling.is_empty() {
                self.write_section(&mut out, "[model.sampling]", &sampling);
            }
        }
        out
    }

    /// The same for programs; keys that have no value are null.
    pub fn to_json(&self) -> Value {
        let models = self.draft.models.iter().map(|model| {
            let mut object = object(model.entries());
            object.insert("experts".to_owned(), object_value(model.experts_entries()));
            object.insert("sampling".to_owned(), object_value(model.sampling_entries()));
            Value::Object(object)
        });
        json!({
            "file": self.file,
            "server": object_value(self.server()),
            "memory": object_value(self.memory()),
            "model": models.collect::<Vec<_>>(),
            "warnings": self.warnings.to_json(),
        })
    }

    fn server(&self) -> Vec<Entry<'_>> {
        let server = &self.draft.server;
        let body_limit = value::size_text(server.body_limit.value as u64);
        let grace = value::duration_text(server.shutdown_grace.value);
        vec![
            entry("host", server.host.value.to_string(), &server.host.origin),
            entry("port", server.port.value, &server.port.origin),
            entry("threads", server.http_threads.value, &server.http_threads.origin),
            entry("body_limit", body_limit, &server.body_limit.origin),
            entry("shutdown_grace", grace, &server.shutdown_grace.origin),
            entry(
                "allowed_hosts",
                server.allowed_hosts.value.clone(),
                &server.allowed_hosts.origin,
            ),
            entry(
                "allowed_origins",
                server.allowed_origins.value.clone(),
                &server.allowed_origins.origin,
            ),
            entry(
                "strict_models",
                server.strict_models.value,
                &server.strict_models.origin,
            ),
        ]
    }

    fn memory(&self) -> Vec<Entry<'_>> {
        let memory = &self.draft.memory;
        let limits = [
            ("vram", &memory.vram),
            ("ram", &memory.ram),
            ("headroom", &memory.headroom),
        ];
        limits
            .map(|(key, limit)| entry(key, memory_text(limit.value), &limit.origin))
            .into()
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

impl ModelDraft {
    fn is_default(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|source| source.origin == Origin::Default)
    }

    fn entries(&self) -> Vec<Entry<'_>> {
        let default = &Origin::Default;
        let aliases: Vec<&str> = self.aliases.iter().map(|alias| alias.value.as_str()).collect();
        let alias_origin = self.aliases.first().map_or(default, |alias| &alias.origin);
        let name = self
            .name
            .as_ref()
            .map(|name| entry("name", name.value.as_str(), &name.origin));
        let role = self
            .role
            .as_ref()
            .map(|role| entry("role", role.value.as_str(), &role.origin));
        let path = self
            .source
            .as_ref()
            .map(|source| entry("path", path::source_text(&source.value), &source.origin));
        let port = self.port.as_ref().map(|port| entry("port", port.value, &port.origin));
        let context = self.context.value.map(|n| entry("context", n, &self.context.origin));
        let threads = self.threads.value.map(|n| entry("threads", n, &self.threads.origin));
        let gpu_layers = self
            .gpu_layers
            .value
            .map(|n| entry("gpu_layers", n, &self.gpu_layers.origin));
        vec![
            name.unwrap_or(absent("name", "none")),
            role.unwrap_or(absent("role", "none")),
            entry("aliases", aliases, alias_origin),
            path.unwrap_or(absent("path", "none")),
            port.unwrap_or(absent("port", "none of its own")),
            context.unwrap_or(absent("context", "what the model was trained for, 32768 at most")),
            entry("parallel", self.parallel.value, &self.parallel.origin),
            threads.unwrap_or(absent("threads", "one per physical core, fewer for small models")),
            entry("queue", self.queue.value, &self.queue.origin),
            entry("kv_type", self.kv_type.value.name(), &self.kv_type.origin),
            gpu_layers.unwrap_or(absent("gpu_layers", "as planned")),
        ]
    }

    fn experts_entries(&self) -> Vec<Entry<'_>> {
        let placement = value::placement_text(self.placement.value);
        let cache = value::cache_size_text(self.cache.value);
        vec![
            entry("placement", placement, &self.placement.origin),
            entry("cache", cache, &self.cache.origin),
            entry(
                "device",
                value::cache_device_text(self.device.value),
                &self.device.origin,
            ),
            entry(
                "policy",
                self.policy.value.map_or("auto", PolicyKind::name),
                &self.policy.origin,
            ),
        ]
    }

    fn sampling_entries(&self) -> Vec<Entry<'_>> {
        let sampling = &self.sampling;
        // By way of text: 0.7 must not become 0.699999988.
        let object: Map<String, Value> = serde_json::to_string(&sampling.value)
            .and_then(|text| serde_json::from_str(&text))
            .unwrap_or_default();
        object
            .into_iter()
            .map(|(key, value)| entry(key, value, &sampling.origin))
            .collect()
    }
}

fn object(entries: Vec<Entry<'_>>) -> Map<String, Value> {
    entries
        .into_iter()
        .map(|entry| (entry.key.into_owned(), entry.value.unwrap_or(Value::Null)))
        .collect()
}

fn object_value(entries: Vec<Entry<'_>>) -> Value {
    Value::Object(object(entries))
}

fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}
