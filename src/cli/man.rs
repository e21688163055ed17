//! `hearth man`: the manual pages.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

/// Arguments of `hearth man`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write the pages of all commands into this folder, such as ~/.local/share/man/man1, instead of printing the first.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let command = super::Cli::command();
    let Some(folder) = args.to else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        std::io::stdout().lock().write_all(&page)?;
        return Ok(());
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(command, &folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    eprintln!(
        "the pages are in {}; `man -l {}` shows the first",
        folder.display(),
        folder.join("hearth.1").display()
    );
    Ok(())
}
