//! What `path = "..."` means, and whether a model can be read from there.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::setting::Setting;
use super::suggest::nearest;
use super::types::{ChatTemplate, Environment, ModelSource};
use super::value::Fault;

/// What relative paths and `~` are relative to.
#[derive(Debug, Clone)]
pub(super) struct Base {
    folder: PathBuf,
    home: Option<PathBuf>,
}

impl Base {
    /// Relative to the folder of the configuration, wherever hearth is started.
    pub fn of_file(file: &Path, env: &Environment) -> Self {
        let folder = file.parent().unwrap_or(Path::new(""));
        Self {
            // Absolute, so that messages and `config show` do not depend on where they are read.
            folder: std::path::absolute(if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            })
            .unwrap_or_else(|_| folder.to_owned()),
            home: home(env),
        }
    }

    /// Relative to where hearth is started, as the paths of any flag.
    pub fn of_process(env: &Environment) -> Self {
        Self::of_file(Path::new("flags"), env)
    }

    /// Makes the path of a model's file absolute. What is wrong with it is reported as a mistake of `key`, and the source is
    /// then missing.
    pub fn anchor(&self, source: &mut Setting<ModelSource>, key: &str, problems: &Problems) {
        if let Some(ModelSource::File(path)) = source.get() {
            source.value = self.found(path, key, &source.origin, problems).map(ModelSource::File);
        }
    }

    /// The same for a file that need not be.
    pub fn anchor_other(&self, source: &mut Setting<Option<ModelSource>>, key: &str, problems: &Problems) {
        if let Some(Some(ModelSource::File(path))) = source.get() {
            let path = self.found(path, key, &source.origin, problems);
            source.value = path.map(|path| Some(ModelSource::File(path)));
        }
    }

    /// Makes the path of a folder absolute, like [`Self::anchor`].
    pub fn anchor_folder(&self, folder: &mut Setting<Option<PathBuf>>, key: &str, problems: &Problems) {
        if let Some(Some(path)) = folder.get() {
            folder.value = self.found(path, key, &folder.origin, problems).map(Some);
        }
    }

    /// The absolute path; `None` if it cannot be made, which is reported.
    fn found(&self, path: &Path, key: &str, origin: &Origin, problems: &Problems) -> Option<PathBuf> {
        let absolute = self.absolute(path).map_err(|fault| {
            let message = format!("`{key}` {}", fault.message);
            problems.push(Diagnostic::error(origin, message).hint(fault.hint));
        });
        absolute.ok()
    }

    /// Reads the file that a chat template is in, if it is in one. What is wrong with it is reported, and it is then missing.
    pub fn read_template(&self, template: &mut Setting<Option<ChatTemplate>>, problems: &Problems) {
        let Some(Some(given)) = template.get().cloned() else {
            return;
        };
        if !given.text.is_empty() {
            return;
        }
        let read = self
            .absolute(Path::new(&given.given))
            .and_then(|path| template_of(&path));
        match read {
            Ok(text) => template.value = Some(Some(ChatTemplate { text, ..given })),
            Err(fault) => {
                let message = format!("`chat_template` {}", fault.message);
                problems.push(Diagnostic::error(&template.origin, message).hint(fault.hint));
                template.value = None;
            }
        }
    }

    fn absolute(&self, path: &Path) -> Result<PathBuf, Fault> {
        // A path that is not UTF-8 cannot begin with `~`.
        let text = path.to_str().unwrap_or_default();
        let home = text.strip_prefix("~/").or_else(|| (text == "~").then_some(""));
        match (home, &self.home) {
            (Some(rest), Some(home)) => Ok(home.join(rest)),
            (Some(_), None) => Err(Fault {
                message: format!("is {text:?}, but `HOME` is not set"),
                hint: Some("write the whole path".to_owned()),
            }),
            (None, _) => Ok(self.folder.join(path)),
        }
    }
}

/// The text of a file with a template.
fn template_of(path: &Path) -> Result<String, Fault> {
    /// Published templates have up to 30 KB.
    const MAX_BYTES: u64 = 1 << 20;
    let fault = |what: String| Fault {
        message: format!("names {}, {what}", path.display()),
        hint: Some("name a file with a Jinja template, or write the template itself".to_owned()),
    };
    let about = fs::metadata(path).map_err(|error| fault(format!("which cannot be read: {error}")))?;
    if !about.is_file() || about.len() == 0 || about.len() > MAX_BYTES {
        return Err(fault(format!("which is no file of 1 to {MAX_BYTES} bytes")));
    }
    fs::read_to_string(path).map_err(|error| fault(format!("which cannot be read: {error}")))
}

/// The user's home folder.
pub(super) fn home(env: &Environment) -> Option<PathBuf> {
    ["HOME", "USERPROFILE"]
        .iter()
        .find_map(|name| env.get(*name))
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
}

/// The name of a model that is served without a configuration: its file's, without part numbers and blanks.
pub(super) fn name_of_file(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let stem = split_parts(&stem).map_or(&*stem, |split| split.stem);
    stem.split_whitespace().collect::<Vec<_>>().join("-")
}

/// `stem-00002-of-00005`.
struct SplitParts<'a> {
    stem: &'a str,
    part: u32,
    parts: u32,
}

fn split_parts(stem: &str) -> Option<SplitParts<'_>> {
    let (rest, parts) = stem.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let number = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some(SplitParts {
        stem,
        part: number(part)?,
        parts: number(parts)?,
    })
}

/// Whether a file is there, readable and a GGUF; of a split model, whether it is the first part and all are there.
pub(super) fn probe(path: &Path) -> Result<(), Fault> {
    probe_one(path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let Some(split) = split_parts(&stem) else {
        return Ok(());
    };
    let part = |number: u32| path.with_file_name(format!("{}-{number:05}-of-{:05}.gguf", split.stem, split.parts));
    if split.part != 1 {
        return Err(Fault {
            message: format!("names part {} of a split model", split.part),
            hint: Some(format!("name its first part: {}", part(1).display())),
        });
    }
    let missing: Vec<String> = (2..=split.parts)
        .filter(|&number| !part(number).is_file())
        .map(|number| number.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Fault {
        message: format!(
            "names a model of {} parts, but of those no. {} is missing",
            split.parts,
            shorten(&missing)
        ),
        hint: Some("all parts must lie in one folder, under the names they were published with".to_owned()),
    })
}

fn shorten(numbers: &[String]) -> String {
    match numbers.get(..5) {
        Some(first) if numbers.len() > 5 => format!("{} ... ({} in all)", first.join(", "), numbers.len()),
        _ => numbers.join(", "),
    }
}

fn probe_one(path: &Path) -> Result<(), Fault> {
    let fault = |message: String, hint: &str| Fault {
        message,
        hint: Some(hint.to_owned()),
    };
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Fault {
            message: format!("names a file that is not there: {shown}"),
            hint: Some(hint_for_missing(path)),
        },
        ErrorKind::PermissionDenied => fault(
            format!("names a file that may not be read: {shown}"),
            "change its permissions, or run hearth as the user it belongs to",
        ),
        _ => fault(
            format!("names a file that cannot be read: {shown}: {error}"),
            "check the disk and the path",
        ),
    };
    let about = fs::metadata(path).map_err(unreadable)?;
    if about.is_dir() {
        return Err(fault(
            format!("names a folder: {shown}"),
            "name the .gguf file in it; of a split model, its first part",
        ));
    }
    // Opening anything else, such as a pipe, might wait forever.
    if !about.is_file() {
        return Err(fault(
            format!("names something that is no file: {shown}"),
            "name a .gguf file",
        ));
    }
    let mut magic = Vec::with_capacity(4);
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .map_err(unreadable)?;
    if magic != b"GGUF" {
        return Err(fault(
            format!("names a file that is not a GGUF: {shown}"),
            "hearth serves GGUF files; llama.cpp's convert_hf_to_gguf.py makes them, or download one. \
             An interrupted download or a Git LFS pointer also looks like this",
        ));
    }
    Ok(())
}

fn hint_for_missing(path: &Path) -> String {
    let folder = path.parent().unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else {
        return format!("there is no folder {} either; change `path`", folder.display());
    };
    // Bounded: a folder may hold anything.
    let names: Vec<String> = entries
        .take(1000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".gguf"))
        .collect();
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "relative paths start in the folder of the configuration file, those of flags where hearth starts"
            .to_owned(),
    }
}
