//! Keys that stand elsewhere: in a file of their own, and in the environment.
//!
//! A line of the file is a key, with settings of `[[key]]` behind it: `KEY name=phone models=narrator,helper`. What stands behind
//! a `#` is a comment.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::keys::{FileKeys, KeyConfig, PartialConfig, PartialKey};
use super::secret::{self, ApiKey};
use super::section::Section;
use super::setting::Setting;
use super::types::Environment;
use super::value::Fault;

/// Bytes of a file with keys.
const MAX_BYTES: u64 = 1 << 20;
/// What a line may say about its key.
const SETTINGS: [&str; 5] = ["name", "models", "requests_per_minute", "concurrent_requests", "admin"];

/// Reads the keys that the configuration only says the place of.
pub(super) fn complete(config: &mut PartialConfig, env: &Environment, problems: &Problems) {
    for key in &mut config.keys {
        of_environment(key, env, problems);
    }
    let Some(Some(path)) = config.server.api_key_file.get() else {
        return;
    };
    let origin = &config.server.api_key_file.origin;
    match text_of(path) {
        Ok(text) => config.file_keys = read(&text, path, origin, problems),
        Err(fault) => {
            let message = format!("`api_key_file` {}", fault.message);
            problems.push(Diagnostic::error(origin, message).hint(fault.hint));
        }
    }
    if is_open(path) {
        let message = format!("all users of this machine can read {}", path.display());
        let hint = format!("chmod 600 {}", path.display());
        problems.push(Diagnostic::warning(origin, message).hint(hint));
    }
}

/// Takes the key from the variable that `key_env` names.
fn of_environment(key: &mut PartialKey, env: &Environment, problems: &Problems) {
    let Some(Some(variable)) = key.key_env.get() else {
        return;
    };
    let origin = &key.key_env.origin;
    // Perhaps it is the key itself: no message repeats it.
    let fault = match env.get(variable).filter(|text| !text.is_empty()) {
        _ if matches!(key.key.get(), Some(Some(_))) => Fault {
            message: "excludes `key`".to_owned(),
            hint: Some("the key is in the variable or in the configuration".to_owned()),
        },
        Some(text) => match secret::api_key(text.trim()) {
            Ok(found) => {
                key.key = Setting::new(Some(found), origin);
                return;
            }
            Err(fault) => Fault {
                message: format!("names a variable that {}", fault.message),
                ..fault
            },
        },
        None => Fault {
            message: "names a variable that is not set".to_owned(),
            hint: Some("set it where hearth is started; the key itself goes into `key`".to_owned()),
        },
    };
    problems.push(Diagnostic::error(origin, format!("`key_env` {}", fault.message)).hint(fault.hint));
}

fn text_of(path: &Path) -> Result<String, Fault> {
    let fault = |what: String| Fault {
        message: format!("names {}, {what}", path.display()),
        hint: Some("name a file with one key on each line".to_owned()),
    };
    let unreadable = |error: std::io::Error| fault(format!("which cannot be read: {error}"));
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(fault(format!("which is no file of up to {MAX_BYTES} bytes")));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Whether everybody on this machine can read a file.
fn is_open(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

fn read(text: &str, path: &Path, origin: &Origin, problems: &Problems) -> FileKeys {
    let mut keys = FileKeys::default();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(first) = words.next() else { continue };
        let settings: Vec<&str> = words.collect();
        let read = secret::api_key(first).and_then(|key| {
            if settings.is_empty() {
                keys.plain.push(key);
            } else {
                keys.named.push(named(number, key, &settings)?);
            }
            Ok(())
        });
        if let Err(fault) = read {
            let message = format!("line {number} of {} {}", path.display(), fault.message);
            problems.push(Diagnostic::error(origin, message).hint(fault.hint));
        }
    }
    keys
}

/// A key with settings. No message repeats the words: they may be keys.
fn named(number: usize, key: ApiKey, settings: &[&str]) -> Result<KeyConfig, Fault> {
    let mut named = PartialKey {
        name: Setting::default_of(format!("line-{number}")),
        key: Setting::default_of(Some(key)),
        ..PartialKey::default()
    };
    for setting in settings {
        let known = setting
            .split_once('=')
            .and_then(|(name, value)| Some((SETTINGS.iter().find(|known| **known == name)?, value)));
        let Some((name, value)) = known else {
            return Err(Fault {
                message: "has something behind its key that is no setting".to_owned(),
                hint: Some(format!("there are {}=...", SETTINGS.join("=..., "))),
            });
        };
        let origin = Origin::Flag("--api-key-file".to_owned());
        named.set(name, value, &origin).map_err(|fault| Fault {
            message: format!("has a `{name}` that {}", fault.message),
            ..fault
        })?;
    }
    named.build().ok_or_else(|| Fault {
        message: "is not complete".to_owned(),
        hint: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys_with_settings() {
        let problems = Problems::new(None);
        let text =
            "# ours\nfirst\n\n  second name=phone models=a,b requests_per_minute=60 # comment\nthird admin=true\n";
        let keys = read(text, Path::new("keys.txt"), &Origin::Default, &problems);
        assert!(problems.into_errors().is_empty());
        let names: Vec<_> = keys.named.iter().map(|key| (key.name.as_str(), key.admin)).collect();
        assert_eq!(names, [("phone", false), ("line-5", true)]);
        assert_eq!(keys.named[0].models, ["a", "b"]);
        assert_eq!(keys.named[0].requests_per_minute, Some(60));
        assert!(keys.plain == [secret::api_key("first").unwrap()]);
    }

    #[test]
    fn mistakes_do_not_repeat_keys() {
        let problems = Problems::new(None);
        let text = "canary canary\nxcänary\ncanary requests_per_minute=-1\ncanary models=\n";
        let keys = read(text, Path::new("keys.txt"), &Origin::Default, &problems);
        assert!(keys.plain.is_empty() && keys.named.is_empty());
        let errors = problems.into_errors();
        assert_eq!(errors.diagnostics().len(), 4);
        assert!(!errors.to_string().contains("anary"), "{errors}");
    }
}
