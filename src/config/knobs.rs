//! The layers above the file: `HEARTH_*` and flags. One table holds what can be turned, so that both read the same
//! values in the same way.

use std::fmt;
use std::path::PathBuf;

use super::Environment;
use super::diagnostic::{Diagnostic, Origin, Problems};
use super::draft::{Draft, ModelDraft, Setting};
use super::path::{self, Base};
use super::suggest::nearest;
use super::types::ModelSource;
use super::value::{self, Fault};

/// Flags of every command that loads models; what is set wins over the environment and the file.
///
/// The variables are not read by clap: it would stop at the first mistake, and refuse empty ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct Overrides {
    /// The configuration file [env: HEARTH_CONFIG; else hearth/models.toml in your configuration folder, else the
    /// built-in models].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Serve this GGUF file (can be repeated), without a configuration file.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub model_path: Vec<PathBuf>,

    /// Address to listen on [env: HEARTH_HOST].
    #[arg(long, value_name = "IP")]
    pub host: Option<String>,

    /// Port that serves all models; 0 lets the system choose [env: HEARTH_PORT].
    #[arg(long)]
    pub port: Option<u16>,

    /// Tokens per slot, for all models [env: HEARTH_CONTEXT].
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<u32>,

    /// Slots per model: sequences that are computed at once [env: HEARTH_PARALLEL].
    #[arg(long, value_name = "SLOTS")]
    pub parallel: Option<u32>,

    /// Threads that compute, per model; if not given one per physical core, fewer for small models [env: HEARTH_THREADS].
    #[arg(long)]
    pub threads: Option<u32>,

    /// Largest request body, such as 8MiB [env: HEARTH_BODY_LIMIT].
    #[arg(long, value_name = "BYTES")]
    pub body_limit: Option<String>,

    /// GPU memory that the models may take together, such as 16GiB [env: HEARTH_VRAM].
    #[arg(long, value_name = "BYTES")]
    pub vram: Option<String>,

    /// Main memory that the models may take together [env: HEARTH_RAM].
    #[arg(long, value_name = "BYTES")]
    pub ram: Option<String>,

    /// Memory that stays free [env: HEARTH_HEADROOM].
    #[arg(long, value_name = "BYTES")]
    pub headroom: Option<String>,
}

impl Overrides {
    /// The text of a flag of [`KNOBS`], if it is set.
    fn text(&self, flag: &str) -> Option<String> {
        match flag {
            "--host" => self.host.clone(),
            "--body-limit" => self.body_limit.clone(),
            "--vram" => self.vram.clone(),
            "--ram" => self.ram.clone(),
            "--headroom" => self.headroom.clone(),
            "--port" => self.port.map(|n| n.to_string()),
            "--context" => self.context.map(|n| n.to_string()),
            "--parallel" => self.parallel.map(|n| n.to_string()),
            "--threads" => self.threads.map(|n| n.to_string()),
            _ => None,
        }
    }
}

/// Something that a variable, and perhaps a flag, can change.
pub struct Knob {
    pub variable: &'static str,
    pub flag: Option<&'static str>,
    /// The key of `models.toml` that it replaces.
    pub key: &'static str,
    set: fn(&mut Draft, &str, &Origin) -> Result<(), Fault>,
}

impl fmt::Debug for Knob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Knob({})", self.variable)
    }
}

/// Variables of hearth that are no part of the configuration or name it.
pub const OTHER_VARIABLES: &[&str] = &[
    "HEARTH_CONFIG",
    "HEARTH_LOG",
    "HEARTH_LOG_FORMAT",
    "HEARTH_CACHE",
    // Read by the scripts and the tests.
    "HEARTH_FEATURES",
    "HEARTH_BIN",
    "HEARTH_URL",
];

/// All that the environment and the flags can change. Those of `[[model]]` change every model.
pub const KNOBS: &[Knob] = &[
    Knob {
        variable: "HEARTH_HOST",
        flag: Some("--host"),
        key: "server.host",
        set: |draft, text, origin| put(&mut draft.server.host, value::host(text), origin),
    },
    Knob {
        variable: "HEARTH_PORT",
        flag: Some("--port"),
        key: "server.port",
        set: |draft, text, origin| put(&mut draft.server.port, value::integer(text, &value::PORT), origin),
    },
    Knob {
        variable: "HEARTH_HTTP_THREADS",
        flag: None,
        key: "server.threads",
        set: |draft, text, origin| {
            let threads = value::integer(text, &value::HTTP_THREADS);
            put(&mut draft.server.http_threads, threads, origin)
        },
    },
    Knob {
        variable: "HEARTH_BODY_LIMIT",
        flag: Some("--body-limit"),
        key: "server.body_limit",
        set: |draft, text, origin| put(&mut draft.server.body_limit, value::body_limit(text), origin),
    },
    Knob {
        variable: "HEARTH_SHUTDOWN_GRACE",
        flag: None,
        key: "server.shutdown_grace",
        set: |draft, text, origin| put(&mut draft.server.shutdown_grace, value::duration(text), origin),
    },
    Knob {
        variable: "HEARTH_MAX_PAUSE",
        flag: None,
        key: "server.max_pause",
        set: |draft, text, origin| put(&mut draft.server.max_pause, value::max_pause(text), origin),
    },
    Knob {
        variable: "HEARTH_ALLOWED_HOSTS",
        flag: None,
        key: "server.allowed_hosts",
        set: |draft, text, origin| {
            let hosts = value::list(text, value::host_name);
            put(&mut draft.server.allowed_hosts, hosts, origin)
        },
    },
    Knob {
        variable: "HEARTH_ALLOWED_ORIGINS",
        flag: None,
        key: "server.allowed_origins",
        set: |draft, text, origin| {
            let origins = value::list(text, value::origin);
            put(&mut draft.server.allowed_origins, origins, origin)
        },
    },
    Knob {
        variable: "HEARTH_STRICT_MODELS",
        flag: None,
        key: "server.strict_models",
        set: |draft, text, origin| put(&mut draft.server.strict_models, value::boolean(text), origin),
    },
    Knob {
        variable: "HEARTH_VRAM",
        flag: Some("--vram"),
        key: "memory.vram",
        set: |draft, text, origin| put(&mut draft.memory.vram, value::memory(text), origin),
    },
    Knob {
        variable: "HEARTH_RAM",
        flag: Some("--ram"),
        key: "memory.ram",
        set: |draft, text, origin| put(&mut draft.memory.ram, value::memory(text), origin),
    },
    Knob {
        variable: "HEARTH_HEADROOM",
        flag: Some("--headroom"),
        key: "memory.headroom",
        set: |draft, text, origin| put(&mut draft.memory.headroom, value::memory(text), origin),
    },
    Knob {
        variable: "HEARTH_CONTEXT",
        flag: Some("--context"),
        key: "model.context",
        set: |draft, text, origin| {
            let context = value::integer(text, &value::CONTEXT).map(Some);
            put_all(draft, |model| &mut model.context, context, origin)
        },
    },
    Knob {
        variable: "HEARTH_PARALLEL",
        flag: Some("--parallel"),
        key: "model.parallel",
        set: |draft, text, origin| {
            let parallel = value::integer(text, &value::PARALLEL);
            put_all(draft, |model| &mut model.parallel, parallel, origin)
        },
    },
    Knob {
        variable: "HEARTH_THREADS",
        flag: Some("--threads"),
        key: "model.threads",
        set: |draft, text, origin| {
            let threads = value::integer(text, &value::THREADS).map(Some);
            put_all(draft, |model| &mut model.threads, threads, origin)
        },
    },
    Knob {
        variable: "HEARTH_QUEUE",
        flag: None,
        key: "model.queue",
        set: |draft, text, origin| {
            let queue = value::integer(text, &value::QUEUE);
            put_all(draft, |model| &mut model.queue, queue, origin)
        },
    },
];

fn put<T>(place: &mut Setting<T>, value: Result<T, Fault>, origin: &Origin) -> Result<(), Fault> {
    *place = Setting::new(value?, origin);
    Ok(())
}

fn put_all<T: Copy>(
    draft: &mut Draft,
    place: fn(&mut ModelDraft) -> &mut Setting<T>,
    value: Result<T, Fault>,
    origin: &Origin,
) -> Result<(), Fault> {
    let value = value?;
    for model in &mut draft.models {
        *place(model) = Setting::new(value, origin);
    }
    Ok(())
}

/// Puts the environment and then the flags onto the draft.
pub(super) fn apply(draft: &mut Draft, overrides: &Overrides, env: &Environment, problems: &Problems) {
    for knob in KNOBS {
        // Compose files pass on variables that are not set as empty ones.
        if let Some(text) = env.get(knob.variable).filter(|text| !text.is_empty()) {
            turn(knob, draft, text, &Origin::Variable(knob.variable.to_owned()), problems);
        }
    }
    for (knob, flag) in KNOBS.iter().filter_map(|knob| Some((knob, knob.flag?))) {
        if let Some(text) = overrides.text(flag) {
            turn(knob, draft, &text, &Origin::Flag(flag.to_owned()), problems);
        }
    }
    warn_of_unknown_variables(env, problems);
}

fn turn(knob: &Knob, draft: &mut Draft, text: &str, origin: &Origin, problems: &Problems) {
    if let Err(fault) = (knob.set)(draft, text, origin) {
        let message = format!("{} {}", problems.place(origin), fault.message);
        problems.push(Diagnostic::error(origin, message).hint(fault.hint));
    }
}

fn warn_of_unknown_variables(env: &Environment, problems: &Problems) {
    let known = || {
        let knobs = KNOBS.iter().map(|knob| knob.variable);
        knobs.chain(OTHER_VARIABLES.iter().copied())
    };
    let ours = env.keys().filter(|name| name.starts_with("HEARTH_"));
    for name in ours.filter(|name| known().all(|other| other != *name)) {
        // Only what follows the common prefix is compared, or every name would look alike.
        let tail = |name: &'static str| &name["HEARTH_".len()..];
        let hint = match nearest(&name["HEARTH_".len()..], known().map(tail)) {
            Some(meant) => format!("did you mean `HEARTH_{meant}`?"),
            None => format!("hearth reads {}", known().collect::<Vec<_>>().join(", ")),
        };
        let origin = Origin::Variable(name.clone());
        let message = format!("unknown environment variable `{name}`");
        problems.push(Diagnostic::warning(&origin, message).hint(hint));
    }
}

/// The models of `--model-path`, with the defaults of a model that a file names.
pub(super) fn models_of_flags(overrides: &Overrides, env: &Environment, problems: &Problems) -> Draft {
    let origin = Origin::Flag("--model-path".to_owned());
    let base = Base::of_process(env);
    let report = |fault: Fault| {
        let message = format!("`--model-path` {}", fault.message);
        problems.push(Diagnostic::error(&origin, message).hint(fault.hint));
    };
    let models = overrides.model_path.iter().map(|path| {
        // A path that is not UTF-8 is legal here, but cannot name a built-in model or start with `~`.
        let source = match path.to_str() {
            Some(text) => base.source(text).map_err(report).ok(),
            None => Some(ModelSource::File(path.clone())),
        };
        let name = match &source {
            Some(ModelSource::File(path)) => path::name_of_file(path),
            Some(demo) => path::source_text(demo).replace(':', "-"),
            None => String::new(),
        };
        let name = source.as_ref().and_then(|_| value::name(&name).map_err(report).ok());
        ModelDraft {
            name: name.map(|name| Setting::new(name, &origin)),
            source: source.map(|source| Setting::new(source, &origin)),
            ..ModelDraft::default()
        }
    });
    Draft {
        models: models.collect(),
        ..Draft::default()
    }
}
