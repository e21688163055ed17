//! `hearth completions`: what shells need to complete hearth's commands and flags.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

/// Arguments of `hearth completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell. For bash: `hearth completions bash > ~/.local/share/bash-completion/completions/hearth`.
    shell: Shell,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    // The generator panics where its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "hearth", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}
