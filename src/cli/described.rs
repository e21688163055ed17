//! A machine that flags describe, for commands that plan for this one or another.

use anyhow::bail;

use super::output::Usage;
use crate::config::{MemoryConfig, parse_size};
use crate::host::{Described, Machine};
use crate::models;

/// What another machine has. What is not given is as on this one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For a GPU with so much memory, such as 16GiB, instead of this machine's; 0 for none.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    vram: Option<u64>,

    /// For so much main memory, instead of this machine's.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    ram: Option<u64>,

    /// For a GPU that shares main memory.
    #[arg(long)]
    unified: bool,
}

impl Args {
    /// This machine as it is for models within these limits, with what is described in the place of what it has.
    ///
    /// # Errors
    /// When flags contradict each other, or nobody says how much memory there is.
    pub(super) fn machine(&self, limits: &MemoryConfig) -> anyhow::Result<Machine> {
        if self.unified && self.vram == Some(0) {
            let message = "--vram 0 means no GPU, but --unified one that shares main memory: leave out one of the two";
            return Err(Usage(message.into()).into());
        }
        let machine = models::machine(limits).described(Described {
            vram: self.vram,
            ram: self.ram,
            unified: self.unified,
        });
        if machine.ram_total == 0 {
            bail!("this system does not tell how much memory it has; say it with --ram");
        }
        Ok(machine)
    }
}

fn size(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { parse_size(text) }
}
