//! How commands talk: results to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(super) use crate::memory::bytes;
use crate::report::{Figure, Table};

/// A mistake in the arguments that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Prints an error with its causes and returns the exit code: 2 for mistakes in the arguments or the configuration, else 1.
pub(super) fn fail(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
    if broken_pipe {
        // The reader has seen enough (`hearth inspect F | head`).
        return ExitCode::SUCCESS;
    }
    let mut stderr = io::stderr().lock();
    // Nothing can be done when even this fails.
    if let Some(mistakes) = error.downcast_ref::<crate::config::ConfigErrors>() {
        let _ = write!(stderr, "{mistakes}");
        return ExitCode::from(2);
    }
    let _ = writeln!(stderr, "error: {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(stderr, "  caused by: {cause}");
    }
    if error.is::<Usage>() {
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}

/// Writes a value as pretty JSON and a newline to standard output.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    writeln!(stdout)?;
    Ok(())
}

/// A progress bar of `total` steps on standard error; invisible when that is not a terminal.
pub(super) fn progress_bar(total: u64, what: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A table for a terminal in which columns of words begin at the left, and columns of numbers end at the right.
pub(super) fn listing(table: Table) -> String {
    let is_number = |cell: &String| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit());
    let numbers: Vec<bool> = (0..table.header.len())
        .map(|column| table.rows.iter().filter_map(|row| row.get(column)).all(is_number))
        .collect();
    let mut out = comfy_table::Table::new();
    out.load_style(comfy_table::presets::NOTHING);
    out.set_header(table.header);
    for row in table.rows {
        out.add_row(row);
    }
    for (column, number) in out.column_iter_mut().zip(numbers) {
        if number {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let lines: Vec<String> = out.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A table for a terminal.
pub(super) fn table(table: Table) -> String {
    let Table { header, rows } = table;
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    table.to_string()
}

/// Writes the files of a report into a folder that is there, each picture as `NAME.svg`.
pub(super) fn write_files<'f>(
    folder: &Path,
    files: impl IntoIterator<Item = (&'f str, String)>,
    figures: impl Iterator<Item = &'f Figure>,
) -> anyhow::Result<()> {
    let texts = files.into_iter().map(|(name, text)| (name.to_owned(), text));
    let pictures = figures.map(|figure| (format!("{}.svg", figure.name), figure.svg.clone()));
    for (name, content) in texts.chain(pictures) {
        let path = folder.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The words of a command, quoted where a shell would need it. The program is called by its name alone.
pub(super) fn command_line(mut words: impl Iterator<Item = String>) -> String {
    words.next();
    // Reports are passed on; a key in them would be, too.
    let is_key = |flag: &str| matches!(flag, "--api-key" | "--url-key");
    let mut secret = false;
    let words = words.map(move |word| {
        let hide = std::mem::replace(&mut secret, is_key(&word));
        match word.split_once('=') {
            _ if hide => "...".to_owned(),
            Some((flag, _)) if is_key(flag) => format!("{flag}=..."),
            _ => word,
        }
    });
    let plain = |c: char| c.is_alphanumeric() || "-_./,=:@+%".contains(c);
    let quoted = words.map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    std::iter::once("hearth".to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_at_the_left_and_numbers_end_at_the_right() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let table = Table {
            header: row(["name", "size", "where"]),
            rows: vec![row(["a", "100 B", "GPU"]), row(["longer", "-", "x"])],
        };
        let lines = listing(table);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            lines,
            [" name     size  where", " a       100 B  GPU", " longer      -  x"]
        );
    }

    #[test]
    fn commands_can_be_repeated() {
        for flag in ["--api-key", "--url-key"] {
            let keys = ["hearth", "serve", flag, "canary", &format!("{flag}=canary")].map(str::to_owned);
            assert_eq!(
                command_line(keys.into_iter()),
                format!("hearth serve {flag} ... {flag}=...")
            );
        }
        let words = ["/usr/bin/hearth", "benchmark", "--model", "my model", "it's", ""];
        assert_eq!(
            command_line(words.into_iter().map(str::to_owned)),
            "hearth benchmark --model 'my model' 'it'\\''s' ''"
        );
    }
}
