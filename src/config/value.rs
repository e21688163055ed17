//! Single values: text and numbers to checked types. Each fault completes a sentence that starts with the key.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::suggest::nearest;
use super::types::{CacheSize, ChatTemplate, FallbackOn, MemoryLimit, ModelSource, STOP_BYTES};
use crate::demo::DemoModel;
use crate::memory::{KvType, KvTypes};

/// Why a value cannot be: "must be ..., but is ...".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub message: String,
    pub hint: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

const BODY_LIMIT: RangeInclusive<u64> = 1024..=1 << 30;
/// Longest time that an idle model is kept by a number.
const MAX_IDLE: Duration = Duration::from_secs(7 * 86_400);
const MAX_GRACE: Duration = Duration::from_secs(3600);
const MAX_PAUSE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const MAX_NAME: usize = 128;

/// Smallest last: text is written with the largest unit that is exact, 1024s before 1000s.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// An IP address; `localhost` is understood too.
pub(super) fn host(text: &str) -> Result<IpAddr, Fault> {
    if text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.parse().map_err(|_| {
        Fault::new(
            format!("must be an IP address, but is {text:?}"),
            "\"127.0.0.1\" serves this machine only, \"0.0.0.0\" serves the whole network",
        )
    })
}

/// `true` or `false`, for variables and flags.
pub(super) fn boolean(text: &str) -> Result<bool, Fault> {
    match text.trim() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Fault::new(
            format!("must be true or false, but is {text:?}"),
            "write true or false",
        )),
    }
}

/// A name by which the server is asked, with or without a port; `*` for any.
pub(super) fn allowed_host(text: &str) -> Result<String, Fault> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    if text == "*" || (!text.is_empty() && text.chars().all(letters)) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("must be a list of host names, but has {text:?}"),
        "\"box.lan\" or \"box.lan:8080\", without http:// and path; \"*\" allows every name",
    ))
}

/// Where a web page comes from; `localhost` for this machine on any port, `*` for anywhere.
pub(super) fn cors_origin(text: &str) -> Result<String, Fault> {
    let whole = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*', ' ']) && text.is_ascii()
    });
    if whole || ["*", "localhost", "null"].contains(&text) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("must be a list of origins, but has {text:?}"),
        "\"https://chat.example\" without a path; \"localhost\" allows the pages of this machine, \"*\" every page",
    ))
}

/// `auto` or a size.
pub(super) fn memory(text: &str) -> Result<MemoryLimit, Fault> {
    if text == "auto" {
        return Ok(MemoryLimit::Auto);
    }
    match size(text) {
        Ok(bytes) => Ok(MemoryLimit::Bytes(bytes)),
        Err(fault) => Err(Fault {
            message: fault
                .message
                .replacen("must be a size", "must be \"auto\" or a size", 1),
            ..fault
        }),
    }
}

/// The text that [`memory`] reads.
pub(super) fn memory_text(limit: &MemoryLimit) -> String {
    match limit {
        MemoryLimit::Auto => "auto".to_owned(),
        MemoryLimit::Bytes(bytes) => size_text(*bytes),
    }
}

/// The types of keys and values.
pub(super) fn kv_types(text: &str) -> Result<KvTypes, Fault> {
    text.parse().map_err(|unknown: String| {
        let names = KvType::ALL.map(KvType::name);
        let quoted = names.map(|name| format!("{name:?}"));
        Fault {
            message: format!(
                "must be one of {}, or two of them as \"keys/values\", but is {text:?}",
                quoted.join(", ")
            ),
            hint: nearest(&unknown, names).map(|meant| format!("did you mean {meant:?}?")),
        }
    })
}

/// `auto`, a share of the experts, or a size.
pub(super) fn cache_size(text: &str) -> Result<CacheSize, Fault> {
    if text == "auto" {
        return Ok(CacheSize::Auto);
    }
    if let Some(percent) = text.trim().strip_suffix('%') {
        return match percent.trim().parse() {
            Ok(percent) if percent <= 100 => Ok(CacheSize::Percent(percent)),
            _ => Err(Fault::new(
                format!("must be between 0% and 100%, but is {text:?}"),
                "whole numbers, such as \"25%\"",
            )),
        };
    }
    size(text).map(CacheSize::Bytes).map_err(|fault| Fault {
        message: fault.message.replacen(
            "must be a size",
            "must be \"auto\", a share such as \"25%\", or a size",
            1,
        ),
        ..fault
    })
}

impl std::str::FromStr for CacheSize {
    type Err = String;

    /// As in the configuration; the error says what it must be.
    fn from_str(text: &str) -> Result<Self, String> {
        cache_size(text).map_err(|fault| match fault.hint {
            Some(hint) => format!("{} ({hint})", fault.message),
            None => fault.message,
        })
    }
}

/// The text that [`cache_size`] reads.
pub(super) fn cache_size_text(size: &CacheSize) -> String {
    match size {
        CacheSize::Auto => "auto".to_owned(),
        CacheSize::Percent(percent) => format!("{percent}%"),
        CacheSize::Bytes(bytes) => size_text(*bytes),
    }
}

/// A size that a request body may have.
pub(super) fn body_limit(text: &str) -> Result<usize, Fault> {
    let bytes = size(text).map_err(|fault| Fault {
        // A body of gibibytes is never meant.
        hint: fault.hint.map(|hint| hint.replace("GiB", "MiB").replace("GB", "MB")),
        ..fault
    })?;
    match usize::try_from(bytes) {
        Ok(limit) if BODY_LIMIT.contains(&bytes) => Ok(limit),
        _ => Err(Fault {
            message: format!(
                "must be between {} and {}, but is {text:?}",
                size_text(*BODY_LIMIT.start()),
                size_text(*BODY_LIMIT.end())
            ),
            hint: None,
        }),
    }
}

/// Bytes of a text such as `16GiB`, `13.5 GB` or `500 mb`.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let fault = |hint: String| Fault::new(format!("must be a size with a unit, but is {text:?}"), hint);
    let (number, unit) = split_unit(text);
    let example = if number.is_empty() || number.starts_with('.') {
        "16"
    } else {
        number
    };
    // Nobody has thousands of GiB: such a number means bytes.
    let ask = || match example.len() {
        0..=3 => fault(format!("write \"{example}GiB\" (1024s) or \"{example}GB\" (1000s)")),
        _ => fault(format!("write \"{example}B\" for bytes, or a unit such as GiB")),
    };
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        // `16G` means 1024s to some programs and 1000s to others: better ask than guess.
        return Err(match unit.to_ascii_uppercase().as_str() {
            short @ ("K" | "M" | "G" | "T") => fault(format!(
                "write \"{example}{short}iB\" (1024s) or \"{example}{short}B\" (1000s)"
            )),
            _ => ask(),
        });
    };
    let too_large = || fault("that is more than any machine has".to_owned());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || (number.contains('.') && fraction.is_empty()) {
        return Err(fault("write the number with one to nine decimals, or none".to_owned()));
    }
    if whole.is_empty() {
        return Err(ask());
    }
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let decimals = u32::try_from(fraction.len()).unwrap_or(0);
    let fraction: u64 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().map_err(|_| ask())?
    };
    let bytes = u128::from(whole) * u128::from(*factor)
        + u128::from(fraction) * u128::from(*factor) / u128::from(10_u64.pow(decimals));
    u64::try_from(bytes).map_err(|_| too_large())
}

/// The shortest text that [`size`] reads as exactly these bytes.
pub(super) fn size_text(bytes: u64) -> String {
    let (unit, factor) = UNITS
        .iter()
        .find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(&UNITS[UNITS.len() - 1]);
    format!("{}{unit}", bytes / factor)
}

/// A time span such as `500ms`, `30s`, `2m`, of an hour at most.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let span = span(text)?;
    if span > MAX_GRACE {
        return Err(Fault::new(
            format!("must be at most one hour, but is {text:?}"),
            "the default is \"30s\"",
        ));
    }
    Ok(span)
}

/// The time that a model may be idle.
pub(super) fn idle(text: &str) -> Result<Duration, Fault> {
    let span = span(text)?;
    if span.is_zero() || span > MAX_IDLE {
        return Err(Fault::new(
            format!("must be more than nothing and at most seven days, but is {text:?}"),
            "\"30m\" is usual; leave it out to keep the model",
        ));
    }
    Ok(span)
}

fn span(text: &str) -> Result<Duration, Fault> {
    let (number, unit) = split_unit(text);
    let fault = |hint: String| Fault::new(format!("must be a time span with a unit, but is {text:?}"), hint);
    let Ok(number) = number.parse::<u64>() else {
        return Err(fault("write \"30s\", \"500ms\" or \"2m\"".to_owned()));
    };
    Ok(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" | "min" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        "d" => Duration::from_secs(number.saturating_mul(86_400)),
        _ => {
            return Err(fault(format!(
                "write \"{number}s\" for seconds; ms, s, m, h and d are understood"
            )));
        }
    })
}

/// A pause of running streams.
pub(super) fn max_pause(text: &str) -> Result<Duration, Fault> {
    let span = duration(text)?;
    if !MAX_PAUSE.contains(&span) {
        let (least, most) = (duration_text(*MAX_PAUSE.start()), duration_text(*MAX_PAUSE.end()));
        return Err(Fault::new(
            format!("must be between {least} and {most}, but is {text:?}"),
            "shorter pauses make long prompts wait; the default is \"500ms\"",
        ));
    }
    Ok(span)
}

/// The text that [`duration`] reads as exactly this span.
pub(super) fn duration_text(span: Duration) -> String {
    if span.subsec_nanos() == 0 {
        format!("{}s", span.as_secs())
    } else {
        format!("{}ms", span.as_millis())
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A name, alias or role: it must survive in a URL, in a header and in a list with commas.
pub(super) fn name(text: &str) -> Result<String, Fault> {
    let fault = |message: String| Fault::new(message, "letters, digits, `-`, `_`, `.`, `:` and inner `/` are fine");
    if text.is_empty() {
        return Err(fault("must not be empty".to_owned()));
    }
    if text.len() > MAX_NAME {
        return Err(fault(format!(
            "must have at most {MAX_NAME} bytes, but has {}",
            text.len()
        )));
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '"' | '\\' | '?' | '#' | '%');
    if let Some(bad) = text.chars().find(|&c| forbidden(c)) {
        return Err(fault(format!("must not contain {bad:?}, but is {text:?}")));
    }
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(fault(format!("must not look like a path, but is {text:?}")));
    }
    Ok(text.to_owned())
}

/// A text before which answers end.
pub(super) fn stop(text: &str) -> Result<String, Fault> {
    match text.len() {
        1..=STOP_BYTES => Ok(text.to_owned()),
        bytes => Err(Fault::new(
            format!("must have texts of 1 to {STOP_BYTES} bytes, but one has {bytes}"),
            "a newline is \"\\n\"",
        )),
    }
}

/// A format that requests may ask for; what a schema says is checked when it is used.
pub(super) fn response_format(format: &Map<String, Json>) -> Result<(), Fault> {
    let hint = "{ type = \"json_object\" }, or { type = \"json_schema\", json_schema = { schema = { ... } } }";
    let fault = |message: String| Err(Fault::new(message, hint));
    let kind = match format.get("type") {
        Some(Json::String(kind)) => kind.as_str(),
        _ => return fault("must have a `type`".to_owned()),
    };
    match kind {
        "text" | "json_object" => Ok(()),
        "json_schema" => match format.get("json_schema").and_then(|of| of.get("schema")) {
            Some(Json::Object(_)) => Ok(()),
            _ => fault("has no `json_schema.schema`".to_owned()),
        },
        _ => fault(format!(
            "must be of type \"text\", \"json_object\" or \"json_schema\", but is {kind:?}"
        )),
    }
}

/// A reason for another model to answer.
pub(super) fn fallback_on(text: &str) -> Result<FallbackOn, Fault> {
    let names = FallbackOn::ALL.map(FallbackOn::name);
    let found = FallbackOn::ALL.into_iter().find(|on| on.name() == text);
    found.ok_or_else(|| Fault {
        message: format!(
            "must be a list of {}, but has {text:?}",
            names.map(|name| format!("{name:?}")).join(", ")
        ),
        hint: nearest(text, names).map(|meant| format!("did you mean {meant:?}?")),
    })
}

/// A chat template: anything with a brace is the text of one, else it names a file, see `Base::read_template`.
pub(super) fn chat_template(text: &str) -> Result<ChatTemplate, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::new(
            "must not be empty",
            "name a file, or write the text of a Jinja template",
        ));
    }
    Ok(ChatTemplate {
        given: text.to_owned(),
        text: if text.contains('{') {
            text.to_owned()
        } else {
            String::new()
        },
    })
}

/// A file or a built-in model. Paths are as they were given, see `Base::anchor`.
pub(super) fn source(text: &str) -> Result<ModelSource, Fault> {
    if let Some(name) = text.strip_prefix("demo:") {
        return demo(name);
    }
    if text.trim().is_empty() {
        return Err(Fault::new(
            "must not be empty",
            "name a .gguf file, or demo:reasoner or demo:narrator",
        ));
    }
    Ok(ModelSource::File(PathBuf::from(text)))
}

/// A folder, which need not be there yet.
pub(super) fn folder(text: &str) -> Result<PathBuf, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::new("must not be empty", "name a folder"));
    }
    Ok(PathBuf::from(text))
}

/// A file, looked for later.
pub(super) fn file(text: &str) -> Result<PathBuf, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::new("must not be empty", "name a file"));
    }
    Ok(PathBuf::from(text))
}

/// How long a client may take.
pub(super) fn client_time(text: &str) -> Result<Duration, Fault> {
    let span = duration(text)?;
    if span < Duration::from_secs(1) {
        return Err(Fault::new(
            format!("must be at least 1s, but is {text:?}"),
            "clients on slow lines need seconds",
        ));
    }
    Ok(span)
}

/// The text that [`source`] reads.
pub(super) fn source_text(source: &ModelSource) -> String {
    match source {
        ModelSource::File(path) => path.display().to_string(),
        ModelSource::Demo(model) => format!("demo:{}", model.name()),
        ModelSource::Upstream => String::new(),
    }
}

fn demo(name: &str) -> Result<ModelSource, Fault> {
    let known = DemoModel::ALL.into_iter().find(|model| model.name() == name);
    match known {
        Some(model) if DemoModel::embedded() => Ok(ModelSource::Demo(model)),
        Some(_) => Err(Fault {
            message: format!("is \"demo:{name}\", but this hearth was built without the built-in models"),
            hint: Some("build it with `--features demo`, or name a .gguf file".to_owned()),
        }),
        None => Err(Fault {
            message: format!(
                "must be a file or a built-in model, but there is no {:?}",
                format!("demo:{name}")
            ),
            hint: Some(match nearest(name, DemoModel::ALL.map(DemoModel::name)) {
                Some(meant) => format!("did you mean demo:{meant}?"),
                None => "the built-in models are demo:reasoner and demo:narrator".to_owned(),
            }),
        }),
    }
}
