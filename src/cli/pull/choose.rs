//! Which files of a repository are fetched.

use std::io::Write;

use anyhow::bail;

use crate::cli::output::{self, Usage};
use crate::hub::{self, Group, RemoteFile};
use crate::report::Table;

/// Which files of a repository are meant.
pub(super) fn choose(
    repo: &str,
    files: &[RemoteFile],
    groups: &[Group],
    file: Option<&str>,
    quant: Option<&str>,
) -> anyhow::Result<Vec<RemoteFile>> {
    if let Some(path) = file {
        if quant.is_some() {
            return Err(Usage("name a file or a quantization, not both".into()).into());
        }
        if let Some(group) = hub::named(groups, path) {
            return complete(group);
        }
        // Projectors, importance matrices and the like.
        if let Some(file) = files.iter().find(|file| file.path == path) {
            return Ok(vec![file.clone()]);
        }
        let near = hub::near(path, files.iter().map(|file| file.path.as_str()));
        let hint = match near.is_empty() {
            true => format!("`hearth pull hf:{repo} --list` shows what is there"),
            false => format!("did you mean {}?", near.join(", or ")),
        };
        bail!("{repo} has no file `{path}`\n  hint: {hint}");
    }
    if groups.is_empty() {
        bail!(
            "{repo} has no GGUF file\n  hint: look for a repository whose name ends in -GGUF, or convert the model with llama.cpp"
        );
    }
    let matching: Vec<&Group> = match quant {
        None => groups.iter().collect(),
        Some(quant) => {
            let is = |group: &&Group| group.quant.as_deref().is_some_and(|of| of.eq_ignore_ascii_case(quant));
            groups.iter().filter(is).collect()
        }
    };
    match (matching.as_slice(), quant) {
        ([group], _) => complete(group),
        ([], Some(quant)) => {
            let near = hub::near(quant, groups.iter().filter_map(|group| group.quant.as_deref()));
            let meant = match near.is_empty() {
                true => String::new(),
                false => format!("; did you mean {}?", near.join(", or ")),
            };
            bail!("{repo} has no `{quant}`{meant}\n{}", table(groups));
        }
        (several, _) => {
            let several: Vec<Group> = several.iter().map(|group| (*group).clone()).collect();
            let message = format!(
                "{repo} has {} models; choose one with --quant, or name its file\n{}",
                several.len(),
                table(&several)
            );
            Err(Usage(message).into())
        }
    }
}

fn complete(group: &Group) -> anyhow::Result<Vec<RemoteFile>> {
    if group.files.len() != group.parts {
        bail!(
            "the repository has only {} of the {} parts of {}",
            group.files.len(),
            group.parts,
            group.file
        );
    }
    Ok(group.files.clone())
}

/// Shows the models of a repository.
pub(super) fn list(groups: &[Group], json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json(&groups);
    }
    writeln!(std::io::stdout().lock(), "{}", table(groups))?;
    Ok(())
}

fn table(groups: &[Group]) -> String {
    let rows = groups.iter().map(|group| {
        vec![
            group.quant.clone().unwrap_or_else(|| "-".to_owned()),
            output::bytes(group.bytes),
            group.parts.to_string(),
            group.file.clone(),
        ]
    });
    output::listing(Table {
        header: ["quant", "size", "files", "file"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    })
}
