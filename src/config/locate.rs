//! Which configuration file is read.
//!
//! Never one from the working folder: the `models.toml` of the repository is an example whose paths must be changed,
//! and the first `hearth serve` in a checkout has to work.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Origin, SourceFile};
use super::overrides::Overrides;
use super::path;
use super::types::Environment;

/// A configuration is typed by people; more than this is another kind of file.
const MAX_FILE: u64 = 1 << 20;

pub(super) enum Found {
    File(SourceFile),
    /// The models are named by `--model-path`.
    Flags,
    BuiltIn,
}

/// `--config`, else `HEARTH_CONFIG`, else the user's `hearth/models.toml`, else the built-in pair.
pub(super) fn locate(overrides: &Overrides, env: &Environment) -> Result<Found, Box<Diagnostic>> {
    if !overrides.model_path.is_empty() {
        if overrides.config.is_some() {
            let origin = Origin::Flag("--model-path".to_owned());
            let hint = "`--model-path` serves files without any configuration; or put them into it";
            let message = "`--model-path` and `--config` exclude each other";
            return Err(Box::new(Diagnostic::error(&origin, message).hint(hint.to_owned())));
        }
        return Ok(Found::Flags);
    }
    if let Some(file) = &overrides.config {
        return read(file, &Origin::Flag("--config".to_owned())).map(Found::File);
    }
    if let Some(file) = env.get("HEARTH_CONFIG").filter(|file| !file.is_empty()) {
        return read(Path::new(file), &Origin::Variable("HEARTH_CONFIG".to_owned())).map(Found::File);
    }
    match user_file(env) {
        Some(file) if file.exists() => read(&file, &Origin::Default).map(Found::File),
        _ => Ok(Found::BuiltIn),
    }
}

/// `hearth/models.toml` in the user's configuration folder (XDG base directories: relative values count as unset).
fn user_file(env: &Environment) -> Option<PathBuf> {
    let folder = env
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| path::home(env).map(|home| home.join(".config")))?;
    Some(folder.join("hearth").join("models.toml"))
}

fn read(file: &Path, origin: &Origin) -> Result<SourceFile, Box<Diagnostic>> {
    let subject = match origin {
        Origin::Flag(name) | Origin::Variable(name) => format!("`{name}` names"),
        _ => "the user's configuration is".to_owned(),
    };
    let shown = file.display();
    let fault = |what: String, hint: &str| {
        Box::new(Diagnostic::error(origin, format!("{subject} {what}: {shown}")).hint(hint.to_owned()))
    };
    let broken = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => fault(
            "a file that is not there".to_owned(),
            "without any configuration hearth serves its built-in pair",
        ),
        _ => fault(
            format!("a file that cannot be read ({error})"),
            "check the path and its permissions",
        ),
    };
    let about = std::fs::metadata(file).map_err(broken)?;
    if about.is_dir() {
        return Err(fault("a folder".to_owned(), "name the file in it, such as models.toml"));
    }
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(broken)?;
    if bytes.starts_with(b"GGUF") {
        return Err(fault(
            "a model, not a configuration".to_owned(),
            "serve it with `--model-path FILE`",
        ));
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(fault(
            "a file of more than 1 MiB".to_owned(),
            "a configuration is a TOML text",
        ));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| fault("a file that is not UTF-8".to_owned(), "save it as UTF-8"))?;
    Ok(SourceFile {
        path: file.to_owned(),
        text,
    })
}
