//! A file that hearth has not seen before is tried in a process of its own first.
//!
//! llama.cpp ends the process when an assertion fails. Files are checked before ([`crate::gguf`]), but not everything that it
//! asserts can be known; a trial loads the model, renders its template and computes a token, so that a bad file ends nothing but
//! that. What passed is remembered by fingerprint.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::error::ModelError;
use super::file::Prepared;
use crate::config::{DraftKind, ExpertPlacement, ModelConfig, ModelSource};
use crate::fingerprint::Fingerprint;
use crate::folders;

/// How files are tried.
#[derive(Debug, Clone)]
pub struct Trials {
    /// Called with the file, and with the role of the model if it has one; ends with success if the model works.
    program: PathBuf,
    arguments: Vec<String>,
    /// Where it is kept what passed.
    folder: PathBuf,
    /// Time for a small file.
    patience: Duration,
}

/// Bytes per second that a slow disk gives.
const SLOWEST: u64 = 50 << 20;
/// Characters of what a failed trial said that are passed on.
const TOLD: u64 = 2000;

impl Trials {
    /// Tries files with this program and arguments.
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<String>) -> Self {
        Self {
            program,
            arguments,
            folder: folders::tried(),
            patience: Duration::from_secs(120),
        }
    }

    /// Whether a model need not be tried: it is built in, or was before.
    pub(super) fn knows(&self, model: &Prepared<'_>) -> bool {
        matches!(model.config.source, ModelSource::Demo(_)) || self.mark(model).exists()
    }

    /// Tries a model, if it was not before. Blocks.
    ///
    /// # Errors
    /// [`ModelError::Trial`] with what came of it.
    pub(super) fn pass(&self, model: &Prepared<'_>) -> Result<(), ModelError> {
        if self.knows(model) {
            return Ok(());
        }
        let name = &model.config.name;
        let file = model.path.display();
        tracing::info!(model = name, %file, "hearth has not seen this file before: it is tried in a process of its own first");
        let started = Instant::now();
        let patience = self.patience + Duration::from_secs(model.gguf.size_bytes() / SLOWEST);
        self.run(&model.path, model.config.role.as_deref(), patience)
            .map_err(|reason| ModelError::Trial {
                model: name.clone(),
                reason,
            })?;
        tracing::info!(
            model = name,
            seconds = started.elapsed().as_secs(),
            "the file can be used"
        );
        let mark = self.mark(model);
        let kept = fs::create_dir_all(&self.folder).and_then(|()| fs::write(&mark, file.to_string()));
        if let Err(error) = kept {
            tracing::warn!("{}: {error}; the file will be tried again", mark.display());
        }
        Ok(())
    }

    /// Where it is kept that a file passed. Weights are not read for it: no number among them ends llama.cpp.
    fn mark(&self, model: &Prepared<'_>) -> PathBuf {
        let size = model.gguf.size_bytes().to_le_bytes();
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        self.folder
            .join(Fingerprint::of([model.gguf.header_bytes(), &size, version]).to_string())
    }

    fn run(&self, file: &Path, role: Option<&str>, patience: Duration) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("a process to try it cannot be started: {error}");
        // Not a pipe: nobody need read it while the process runs.
        let mut said = tempfile::tempfile().map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(file)
            .args(role)
            // What is on the GPU is the server's business.
            .env("CUDA_VISIBLE_DEVICES", "")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone().map_err(failed)?);
        let mut child = command.spawn().map_err(failed)?;
        let deadline = Instant::now() + patience;
        let status = loop {
            match child.try_wait().map_err(failed)? {
                Some(status) => break status,
                None if Instant::now() >= deadline => {
                    // It may have ended by now.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("it is not loaded after {} s", patience.as_secs()));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(format!("{}: {}", ending(status), last_words(&mut said)))
    }
}

/// How a process ended.
fn ending(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("llama.cpp cannot load or compute it, and would have ended the server (signal {signal})");
    }
    let _ = status;
    "it cannot be loaded or computed".to_owned()
}

/// The end of what a process said.
fn last_words(said: &mut fs::File) -> String {
    let mut text = Vec::new();
    let length = said.seek(SeekFrom::End(0)).unwrap_or(0);
    let begin = length.saturating_sub(TOLD);
    if said.seek(SeekFrom::Start(begin)).is_err() || said.read_to_end(&mut text).is_err() || text.is_empty() {
        return "it said nothing".to_owned();
    }
    let text = String::from_utf8_lossy(&text);
    // The reason is the last thing that is said, or what an assertion says before the stack.
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let assertion = lines.clone().find(|line| line.contains("GGML_ASSERT"));
    assertion.or_else(|| lines.next_back()).unwrap_or_default().to_owned()
}

/// The model of a trial: as small as can be, in main memory.
#[must_use]
pub fn trial_model(file: PathBuf, role: Option<String>) -> ModelConfig {
    let mut model = ModelConfig::new("trial", ModelSource::File(file));
    model.role = role;
    model.context = Some(256);
    model.parallel = Some(1);
    model.ubatch = Some(64);
    model.gpu_layers = Some(0);
    model.experts.placement = ExpertPlacement::Cpu;
    model.draft.kind = DraftKind::None;
    model
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn trial(script: &str, patience: Duration) -> Result<(), String> {
        let trials = Trials {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            folder: PathBuf::new(),
            patience,
        };
        trials.run(Path::new("model.gguf"), None, patience)
    }

    #[test]
    fn a_process_that_fails_dies_or_hangs_is_told() {
        let minute = Duration::from_secs(60);
        assert_eq!(trial("exit 0", minute), Ok(()));
        let error = trial("echo one >&2; echo the reason >&2; exit 1", minute).unwrap_err();
        assert_eq!(error, "it cannot be loaded or computed: the reason");
        let error = trial(
            "echo 'a.cpp:1: GGML_ASSERT(x) failed' >&2; echo stack >&2; kill -ABRT $$",
            minute,
        )
        .unwrap_err();
        assert!(
            error.contains("signal 6") && error.ends_with("GGML_ASSERT(x) failed"),
            "{error}"
        );
        let started = Instant::now();
        let error = trial("sleep 60", Duration::from_millis(100)).unwrap_err();
        assert!(
            error.contains("not loaded after") && started.elapsed() < Duration::from_secs(30),
            "{error}"
        );
        let error = trial("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", minute).unwrap_err();
        assert!(error.len() < 3000);
    }
}
