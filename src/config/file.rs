//! `models.toml`, read with all its mistakes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::mistakes::Mistakes;
use super::section::{Found, Section, unknown_key};
use super::{Config, ConfigErrors, MemoryConfig, ModelConfig, ModelSource, ServerConfig, schema, units};
use crate::demo::DemoModel;
use crate::engine::SamplingOverrides;

pub(super) const MAX_PARALLEL: u32 = 64;
pub(super) const MAX_CONTEXT: u32 = 4 << 20;
const MAX_NAME: usize = 128;

/// Names and ports that are taken: a second use of one is a mistake.
#[derive(Default)]
struct Taken {
    names: BTreeMap<String, &'static str>,
    ports: BTreeMap<u32, String>,
}

pub(super) fn parse(text: &str, path: &Path) -> Result<Config, ConfigErrors> {
    let mistakes = RefCell::new(Mistakes::new(text));
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let span = error.span().unwrap_or(0..0);
        mistakes.borrow_mut().at(&span, error.message(), None);
    }
    let mut config = Config {
        server: ServerConfig::default(),
        memory: MemoryConfig::default(),
        models: Vec::new(),
    };
    // What follows a syntax error is not worth judging.
    if syntax.is_empty() {
        let root = Section::new("the file", document.get_ref(), 0..0, &mistakes);
        let mut taken = Taken::default();
        if let Some((table, span)) = root.table("server") {
            read_server(
                &mut config.server,
                &mut taken,
                Section::new("[server]", table, span, &mistakes),
            );
        }
        taken
            .ports
            .entry(u32::from(config.server.port))
            .or_insert_with(|| "the server".into());
        if let Some((table, span)) = root.table("memory") {
            read_memory(&mut config.memory, Section::new("[memory]", table, span, &mistakes));
        }
        config.models = read_models(&root, path, &mut taken, &mistakes);
        root.finish();
    }
    mistakes.into_inner().finish(path.to_owned(), config)
}

fn read_server(server: &mut ServerConfig, taken: &mut Taken, section: Section<'_, '_, '_>) {
    let address = |text: &str| {
        text.parse().map_err(|_| {
            format!("`{text}` is not an address; write an IP address such as \"127.0.0.1\" or \"0.0.0.0\"")
        })
    };
    if let Some(host) = section.parsed("host", address) {
        server.host = host;
    }
    if let Some(port) = port(&section, "the server", taken) {
        server.port = port;
    }
    if let Some(threads) = section.number("threads", 1..=256) {
        server.http_threads = threads.value as usize;
    }
    let limit = |text: &str| match units::bytes(text)? {
        bytes @ 1024..=1_073_741_824 => usize::try_from(bytes).map_err(|error| error.to_string()),
        _ => Err(format!("`{text}` is not from 1KiB to 1GiB; the default is 8MiB")),
    };
    if let Some(limit) = section.parsed("body_limit", limit) {
        server.body_limit = limit;
    }
    if let Some(grace) = section.parsed("shutdown_grace", units::duration) {
        server.shutdown_grace = grace;
    }
    section.finish();
}

fn read_memory(memory: &mut MemoryConfig, section: Section<'_, '_, '_>) {
    for (key, limit) in [
        ("vram", &mut memory.vram),
        ("ram", &mut memory.ram),
        ("headroom", &mut memory.headroom),
    ] {
        if let Some(value) = section.parsed(key, str::parse) {
            *limit = value;
        }
    }
    section.finish();
}

fn read_models<'t>(
    root: &Section<'_, '_, 't>,
    path: &Path,
    taken: &mut Taken,
    mistakes: &RefCell<Mistakes<'t>>,
) -> Vec<ModelConfig> {
    let example = "write\n        [[model]]\n        name = \"my-model\"\n        path = \"model.gguf\"";
    let Some(found) = root.get("model") else {
        root.mistake(root.span(), "there is no model in the file", example);
        return Vec::new();
    };
    let Some(array) = found.get_ref().as_array().filter(|array| !array.is_empty()) else {
        root.mistake(&found.span(), "`model` is not a list of models", example);
        return Vec::new();
    };
    let mut models = Vec::new();
    for entry in array.iter() {
        let Some(table) = entry.get_ref().as_table() else {
            root.mistake(&entry.span(), "a model is not a table", example);
            continue;
        };
        let section = Section::new("[[model]]", table, entry.span(), mistakes);
        models.extend(read_model(section, path, taken, mistakes));
    }
    models
}

fn read_model(
    section: Section<'_, '_, '_>,
    file: &Path,
    taken: &mut Taken,
    mistakes: &RefCell<Mistakes<'_>>,
) -> Option<ModelConfig> {
    let name = section.text("name");
    if name.is_none() && section.get("name").is_none() {
        section.mistake(section.span(), "a model has no name", "add name = \"...\"");
    }
    let name = name.filter(|name| claim(&section, name, "name", taken));
    let aliases = section.texts("aliases");
    let aliases: Vec<String> = aliases
        .into_iter()
        .filter(|alias| claim(&section, alias, "alias", taken))
        .map(|alias| alias.value.to_owned())
        .collect();
    let role = section.text("role").filter(|role| usable(&section, role, "role"));
    let source = match section.text("path") {
        Some(path) => source(&section, &path, file),
        None => {
            if section.get("path").is_none() {
                section.mistake(
                    section.span(),
                    "a model has no path",
                    "add path = \"model.gguf\" or path = \"demo:reasoner\"",
                );
            }
            None
        }
    };
    let label = name.as_ref().map_or("another model", |name| name.value);
    let port = port(&section, label, taken);
    let context = section.number("context", 32..=MAX_CONTEXT).map(|found| found.value);
    let parallel = section.number("parallel", 1..=MAX_PARALLEL).map(|found| found.value);
    let threads = section.number("threads", 1..=1024).map(|found| found.value);
    let queue = section.number("queue", 0..=100_000).map(|found| found.value as usize);
    let sampling = match section.table("sampling") {
        Some((table, _)) => read_sampling(table, mistakes),
        None => SamplingOverrides::default(),
    };
    section.finish();
    let mut model = ModelConfig {
        role: role.map(|role| role.value.to_owned()),
        aliases,
        port,
        context,
        threads,
        sampling,
        ..ModelConfig::new(name?.value, source?)
    };
    model.parallel = parallel.unwrap_or(model.parallel);
    model.queue = queue.unwrap_or(model.queue);
    Some(model)
}

/// Whether a name can be used at all: clients put it into URLs, labels and headers.
fn usable(section: &Section<'_, '_, '_>, name: &Found<&str>, what: &str) -> bool {
    let good = !name.value.is_empty()
        && name.value.len() <= MAX_NAME
        && !name.value.contains(|c: char| c.is_whitespace() || c.is_control());
    if !good {
        section.mistake(
            &name.span,
            format!("`{}` cannot be the {what} of a model", name.value.escape_debug()),
            format!("use 1 to {MAX_NAME} characters without spaces"),
        );
    }
    good
}

fn claim(section: &Section<'_, '_, '_>, name: &Found<&str>, what: &'static str, taken: &mut Taken) -> bool {
    if !usable(section, name, what) {
        return false;
    }
    if let Some(other) = taken.names.insert(name.value.to_owned(), what) {
        section.mistake(
            &name.span,
            format!("`{}` is already the {other} of a model", name.value),
            "names and aliases must differ from each other",
        );
        return false;
    }
    true
}

fn port(section: &Section<'_, '_, '_>, owner: &str, taken: &mut Taken) -> Option<u16> {
    let port = section.number("port", 0..=65_535)?;
    // Port 0 lets the system choose, as often as wanted.
    if port.value != 0
        && let Some(other) = taken.ports.insert(port.value, owner.to_owned())
    {
        section.mistake(
            &port.span,
            format!("port {} is already the port of {other}", port.value),
            "each listener needs a port of its own",
        );
    }
    u16::try_from(port.value).ok()
}

fn source(section: &Section<'_, '_, '_>, path: &Found<&str>, file: &Path) -> Option<ModelSource> {
    if let Some(name) = path.value.strip_prefix("demo:") {
        let Some(demo) = DemoModel::ALL.into_iter().find(|demo| demo.name() == name) else {
            section.mistake(
                &path.span,
                format!("there is no built-in model `{name}`"),
                "use demo:reasoner or demo:narrator",
            );
            return None;
        };
        if !DemoModel::embedded() {
            section.mistake(
                &path.span,
                "this hearth was built without the built-in models",
                "build with the feature `demo`, or give the path of a GGUF file",
            );
            return None;
        }
        return Some(ModelSource::Demo(demo));
    }
    let resolved = resolve(path.value, file);
    let problem = match std::fs::metadata(&resolved) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
        Ok(found) if found.is_dir() => "is a folder, not a GGUF file".to_owned(),
        Ok(_) => return Some(ModelSource::File(resolved)),
    };
    section.mistake(
        &path.span,
        format!("{} {problem}", resolved.display()),
        "relative paths start at the folder of the configuration file",
    );
    None
}

/// A path relative to the configuration file; `~` is the home directory.
fn resolve(path: &str, file: &Path) -> PathBuf {
    if let Some(rest) = path.strip_prefix("~/")
        && let Ok(home) = etcetera::home_dir()
    {
        return home.join(rest);
    }
    file.parent().unwrap_or(Path::new("")).join(path)
}

fn read_sampling(table: &DeTable<'_>, mistakes: &RefCell<Mistakes<'_>>) -> SamplingOverrides {
    let known = schema::sampling_keys();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut sampling = SamplingOverrides::default();
    let mut spans: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut mistakes = mistakes.borrow_mut();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        if !known.contains(&name) {
            unknown_key(&mut mistakes, "sampling", key, &known);
            continue;
        }
        let one = serde_json::json!({ name: json(value.get_ref()) });
        match serde_json::from_value::<SamplingOverrides>(one) {
            Ok(one) => {
                for (field, problem) in one.problems() {
                    spans.insert(field, value.span());
                    mistakes.at(&value.span(), problem, None);
                }
                sampling = one.or(&sampling);
            }
            Err(error) => mistakes.at(&value.span(), format!("`{name}`: {error}"), None),
        }
    }
    sampling
}

/// A TOML value as JSON; dates, which no key of ours has, as text.
fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .map_or(serde_json::Value::Null, Into::into),
        DeValue::Float(number) => number
            .as_str()
            .replace('_', "")
            .parse::<f64>()
            .map_or(serde_json::Value::Null, Into::into),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(array) => array.iter().map(|value| json(value.get_ref())).collect(),
        DeValue::Table(table) => table
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
