//! The layers above the file: `HEARTH_*` and flags. Which there are, the table of keys says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgGroup, ArgMatches, Command};

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::keys::{PartialConfig, PartialModel, keys};
use super::path::{self, Base};
use super::section::Key;
use super::setting::Setting;
use super::suggest::nearest;
use super::types::{Environment, ModelSource};
use super::value::{self, Fault};

/// Flags of every command that loads models; what is set wins over the environment and the file.
///
/// The variables are not read by clap: it would stop at the first mistake, and refuse empty ones.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--model-path`.
    pub model_path: Vec<PathBuf>,
    /// The flags of keys, with their dashes, and what they are set to.
    pub flags: BTreeMap<&'static str, String>,
}

/// Names of flags without what they are set to: that may be a key.
impl std::fmt::Debug for Overrides {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Overrides")
            .field("config", &self.config)
            .field("model_path", &self.model_path)
            .field("flags", &self.flags.keys())
            .finish()
    }
}

impl Overrides {
    /// The name of the group that all these flags are in, for flags that conflict with them.
    pub const GROUP: &'static str = "configuration";

    /// With a flag of a key, if there is something to set it to.
    #[must_use]
    pub fn with(mut self, flag: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.flags.insert(flag, value.to_string());
        }
        self
    }
}

const CONFIG: &str = "config";
const MODEL_PATH: &str = "model-path";

/// The flags of keys.
fn flags() -> impl Iterator<Item = (&'static str, &'static str, Key)> {
    keys().into_iter().filter_map(|key| {
        let (flag, value_name) = key.flag?;
        Some((flag, value_name, key))
    })
}

impl clap::Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let file = |id, help: &'static str| {
            Arg::new(id)
                .long(id)
                .value_name("FILE")
                .help(help)
                .value_parser(clap::value_parser!(PathBuf))
        };
        let config = "The configuration file [env: HEARTH_CONFIG; else hearth/models.toml in your configuration folder, else the \
                      built-in models]";
        let model_path = "Serve this GGUF file (can be repeated), without a configuration file";
        let of_keys = flags().map(|(flag, value_name, key)| {
            let variable = key.variable.map(|name| format!(" [env: {name}]")).unwrap_or_default();
            Arg::new(flag)
                .long(flag.trim_start_matches('-'))
                .value_name(value_name)
                .help(format!("{}{variable}", sentence(&key.doc.replace('`', ""))))
        });
        let all = [
            file(CONFIG, config),
            file(MODEL_PATH, model_path)
                .action(clap::ArgAction::Append)
                .conflicts_with(CONFIG),
        ];
        let all: Vec<Arg> = all.into_iter().chain(of_keys).collect();
        let group = ArgGroup::new(Self::GROUP).multiple(true);
        let group = group.args(all.iter().map(Arg::get_id));
        command
            .args(all.into_iter().map(|arg| arg.help_heading("Configuration")))
            .group(group)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// With a capital.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

impl clap::FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut overrides = Self::default();
        overrides.update_from_arg_matches(matches)?;
        Ok(overrides)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one(CONFIG).cloned();
        self.model_path = matches
            .get_many(MODEL_PATH)
            .map(|paths| paths.cloned().collect())
            .unwrap_or_default();
        for (flag, ..) in flags() {
            if let Some(text) = matches.get_one::<String>(flag) {
                self.flags.insert(flag, text.clone());
            }
        }
        Ok(())
    }
}

/// Variables of hearth that are no part of the configuration or name it.
const OTHER_VARIABLES: &[&str] = &[
    "HEARTH_CONFIG",
    "HEARTH_LOG",
    "HEARTH_LOG_FORMAT",
    "HEARTH_CACHE",
    "HEARTH_MODELS",
    // Switches of the expert cache, to compare on a GPU.
    "HEARTH_EXPERT_HANDOVER",
    "HEARTH_EXPERT_DIVIDED",
    // Read by the scripts and the tests.
    "HEARTH_CPU",
    "HEARTH_FEATURES",
    "HEARTH_BIN",
    "HEARTH_COMMIT",
    "HEARTH_URL",
];

/// Variables that mean another one, because it takes several values.
const PLURALS: [(&str, &str); 1] = [("HEARTH_API_KEYS", "HEARTH_API_KEY")];

/// Puts the environment and then the flags onto what the file says.
pub(super) fn apply(config: &mut PartialConfig, overrides: &Overrides, env: &Environment, problems: &Problems) {
    for key in keys() {
        // Compose files pass on variables that are not set as empty ones.
        let variable = key.variable.and_then(|name| Some((name, env.get(name)?)));
        let plural = || PLURALS.iter().find(|(_, singular)| key.variable == Some(singular));
        let variable = variable.or_else(|| plural().and_then(|(name, _)| Some((*name, env.get(*name)?))));
        if let Some((name, text)) = variable.filter(|(_, text)| !text.is_empty()) {
            set(&key, config, text, &Origin::Variable(name.to_owned()), problems);
        }
    }
    for (flag, _, key) in flags() {
        if let Some(text) = overrides.flags.get(flag) {
            set(&key, config, text, &Origin::Flag(flag.to_owned()), problems);
        }
    }
    warn_of_unknown_variables(env, problems);
}

fn set(key: &Key, config: &mut PartialConfig, text: &str, origin: &Origin, problems: &Problems) {
    if let Err(fault) = config.set(key, text, origin) {
        let message = format!("{} {}", problems.place(origin), fault.message);
        problems.push(Diagnostic::error(origin, message).hint(fault.hint));
    }
}

fn warn_of_unknown_variables(env: &Environment, problems: &Problems) {
    let keys = keys();
    let known = || {
        let of_keys = keys.iter().filter_map(|key| key.variable);
        let plurals = PLURALS.iter().map(|(name, _)| *name);
        of_keys.chain(OTHER_VARIABLES.iter().copied()).chain(plurals)
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
pub(super) fn models_of_flags(overrides: &Overrides, env: &Environment, problems: &Problems) -> PartialConfig {
    let origin = Origin::Flag("--model-path".to_owned());
    let base = Base::of_process(env);
    let report = |fault: Fault| {
        let message = format!("`--model-path` {}", fault.message);
        problems.push(Diagnostic::error(&origin, message).hint(fault.hint));
    };
    let models = overrides.model_path.iter().map(|path| {
        let mut model = PartialModel::default();
        // A path that is not UTF-8 is legal here, but cannot name a built-in model or start with `~`.
        let source = match path.to_str() {
            Some(text) => value::source(text).map_err(report).ok(),
            None => Some(ModelSource::File(path.clone())),
        };
        let Some(source) = source else { return model };
        let name = match &source {
            ModelSource::File(path) => path::name_of_file(path),
            ModelSource::Demo(_) | ModelSource::Upstream => value::source_text(&source).replace(':', "-"),
        };
        if let Ok(name) = value::name(&name).map_err(report) {
            model.name = Setting::new(name, &origin);
        }
        model.source = Setting::new(source, &origin);
        base.anchor(&mut model.source, "--model-path", problems);
        model
    });
    PartialConfig {
        models: models.collect(),
        ..PartialConfig::default()
    }
}
