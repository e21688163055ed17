//! The project's own files, for tests that read them.

use std::path::Path;

/// A text file; its path starts at the root of the project.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// The text files below a folder of the project whose paths are wanted. What builds and environments leave there is skipped.
pub fn files_below(folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if name.starts_with('.') || ["target", "__pycache__", "node_modules"].contains(&name.as_str()) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if wanted(&relative) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path: relative, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Rust code without comments, texts, and what is compiled for tests only.
pub fn code_of(text: &str) -> String {
    let text = without_comments_and_texts(text);
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            out += line;
            out.push('\n');
            continue;
        }
        // The item: to its end in the column where it starts.
        let indent = line.len() - line.trim_start().len();
        for line in lines.by_ref() {
            let at_start = line.len() - line.trim_start().len() == indent;
            if at_start && (line.trim_end().ends_with(';') || line.trim() == "}") {
                break;
            }
        }
    }
    out
}

fn without_comments_and_texts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            text_length(rest)
        } else if let Some(hashes) = raw_text(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
        } else {
            character(rest)
        };
        if skipped > 0 {
            // Lines stay lines.
            out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
            continue;
        }
        // A whole word at a time: the `r` of `for"` starts no raw text.
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let length = word.max(c.len_utf8());
        out += &rest[..length];
        rest = &rest[length..];
    }
    out
}

/// Bytes of a text with its quotes.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The number of `#` of a raw text that starts here.
fn raw_text(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Bytes of a character in quotes that starts here; 0 for none, and for lifetimes.
fn character(rest: &str) -> usize {
    let mut letters = rest.char_indices();
    if letters.next().map(|(_, c)| c) != Some('\'') {
        return 0;
    }
    match letters.next() {
        // Such as '\'' or '\u{7f}'.
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |at| at + 4),
        Some(_) => letters.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}
