//! What a user sees of a transfer.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;
use crate::hub::{Fetched, Progress};

/// A progress bar on a terminal, and a line now and then elsewhere.
pub(super) struct Shown {
    bar: ProgressBar,
    name: String,
    terminal: bool,
    told: Instant,
}

impl Shown {
    /// Time between lines where no bar can be drawn.
    const PAUSE: Duration = Duration::from_secs(30);

    /// For the file with this path, one of so many.
    pub(super) fn new(path: &Path, index: usize, of: usize) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if of > 1 {
            name = format!("{name} ({} of {of})", index + 1);
        }
        let bar = output::progress_bar(0, &name);
        let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            name,
            terminal: std::io::stderr().is_terminal(),
            told: Instant::now(),
        }
    }

    /// Nothing more comes for now.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// The file is there.
    pub(super) fn done(&self, fetched: &Fetched) {
        self.clear();
        let Self { name, .. } = self;
        let size = output::bytes(fetched.bytes);
        let checked = if fetched.verified { ", SHA-256 is right" } else { "" };
        match fetched.resumed {
            0 => eprintln!("{name}: {size}{checked}"),
            resumed => eprintln!(
                "{name}: {size}, {} of them from an earlier attempt{checked}",
                output::bytes(resumed)
            ),
        }
    }
}

impl Progress for Shown {
    fn at(&mut self, bytes: u64, of: Option<u64>) {
        if let Some(of) = of {
            self.bar.set_length(of);
        }
        self.bar.set_position(bytes);
        if !self.terminal && self.told.elapsed() >= Self::PAUSE {
            self.told = Instant::now();
            let of = of.map_or_else(String::new, |of| format!(" of {}", output::bytes(of)));
            eprintln!("{}: {}{of}", self.name, output::bytes(bytes));
        }
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| eprintln!("{}: {text}", self.name));
    }
}
