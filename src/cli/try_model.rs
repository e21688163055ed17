//! `hearth try-model`: what the server starts to try a file that it has not seen before, see [`crate::models`]. Not for people.

use std::path::PathBuf;

use anyhow::bail;

use super::engines;
use super::generate::Asker;
use crate::config::{Config, MemoryConfig, ServerConfig};
use crate::engine::local::ALL_LAYERS;
use crate::engine::{Prompt, SamplingOverrides, TokenEngine};
use crate::generation::{GenerationError, Options};
use crate::models::trial_model;

/// Arguments of `hearth try-model`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A GGUF file.
    file: PathBuf,
    /// The model's role.
    role: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    limit_memory();
    let model = trial_model(args.file, args.role);
    let config = Config {
        server: ServerConfig::default(),
        memory: MemoryConfig::default(),
        models: vec![model.clone()],
        presets: Vec::new(),
        keys: Vec::new(),
    };
    // Experts stay where they are in the file: nothing is repacked for one token.
    let started = engines::start_as(&model, &config, Some(ALL_LAYERS))?;
    let engine = started.engine;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        if engine.pooling().is_some() {
            let text = Prompt::Text {
                text: "Hello".to_owned(),
                add_special: true,
            };
            engine.embed(vec![text]).await?;
            return Ok(());
        }
        let options = Options {
            sampling: SamplingOverrides {
                max_tokens: Some(1),
                ..SamplingOverrides::default()
            },
            ..Options::default()
        };
        let asker = Asker::new(engine);
        match asker.ask(None, "Hello", options).await {
            Ok(outputs) => {
                outputs.collect().await?;
                Ok(())
            }
            // A template that is broken, or too long for this context, breaks no server.
            Err(GenerationError::Template(_) | GenerationError::InvalidRequest { .. }) => Ok(()),
            Err(error) => bail!(error),
        }
    })
}

/// Bounds what the process may allocate by what is free, so that a file cannot drive others out of memory.
fn limit_memory() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let free = crate::host::machine().ram_available;
        let limit = Rlimit {
            current: Some(free),
            maximum: getrlimit(Resource::Data).maximum,
        };
        // A limit that is lower already stays.
        if getrlimit(Resource::Data).current.is_none_or(|now| now > free) {
            let _ = setrlimit(Resource::Data, limit);
        }
    }
}
