//! Models in several files, as llama.cpp's `gguf-split` writes them: `NAME-00001-of-00003.gguf`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::printable;
use super::value::Place;
use super::{GgufError, Part, TensorInfo, ValueType};

/// Opens the files that follow the first one, if the first one says that there are more.
pub(super) fn open_rest(parts: &mut Vec<Part>) -> Result<(), GgufError> {
    let first = &parts[0];
    let number = |key| first.get(key).and_then(|value| value.as_u64());
    let count = number("split.count").unwrap_or(1);
    if count <= 1 {
        return Ok(());
    }
    let fail = |problem: String| GgufError::Split {
        path: first.path.clone(),
        problem,
    };
    if number("split.no").unwrap_or(0) != 0 {
        return Err(fail(
            "is not the first part of its model; give the path of that one".into(),
        ));
    }
    // Names have five digits.
    let count = usize::try_from(count).ok().filter(|count| *count <= 99_999);
    let Some(count) = count else {
        return Err(fail("says that it has more than 99,999 parts".into()));
    };
    let Some(paths) = names(&first.path, count) else {
        return Err(fail(format!(
            "is the first of {count} parts, but its name does not end in -00001-of-{count:05}.gguf"
        )));
    };
    for (index, path) in paths.into_iter().enumerate().skip(1) {
        let part = Part::open(&path)?;
        let number = |key| part.get(key).and_then(|value| value.as_u64());
        let problem = match (number("split.no"), number("split.count")) {
            (None, _) => "is part of a model, but has no split.no".to_owned(),
            (Some(number), _) if number != index as u64 => {
                format!("should be part {index}, counted from 0, but its split.no is {number}")
            }
            (_, Some(parts)) if parts != count as u64 => {
                format!("says that the model has {parts} parts, but the first part says {count}")
            }
            // llama.cpp aborts on another type.
            _ if !matches!(part.place("split.no"), Some(Place::Scalar(ValueType::U16, _))) => {
                "has a split.no that is not a u16".to_owned()
            }
            _ => String::new(),
        };
        if !problem.is_empty() {
            return Err(GgufError::Split { path, problem });
        }
        parts.push(part);
    }
    Ok(())
}

/// The tensors of all parts; no name may stand in two of them.
pub(super) fn join(parts: &[Part]) -> Result<Vec<TensorInfo>, GgufError> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for (index, part) in parts.iter().enumerate() {
        for tensor in &part.header.tensors {
            if !seen.insert(tensor.name.as_str()) {
                return Err(GgufError::Split {
                    path: part.path.clone(),
                    problem: format!(
                        "holds the tensor {} that an earlier part holds, too",
                        printable(&tensor.name)
                    ),
                });
            }
            tensors.push(TensorInfo {
                part: index,
                ..tensor.clone()
            });
        }
    }
    let expected = parts[0].get("split.tensors.count").and_then(|value| value.as_u64());
    if let Some(expected) = expected
        && parts.len() > 1
        && expected != tensors.len() as u64
    {
        return Err(GgufError::Split {
            path: parts[0].path.clone(),
            problem: format!(
                "says that the model has {expected} tensors, but its parts hold {}",
                tensors.len()
            ),
        });
    }
    Ok(tensors)
}

fn names(first: &Path, count: usize) -> Option<Vec<PathBuf>> {
    let name = first.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-00001-of-{count:05}.gguf"))?;
    let name = |index: usize| first.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", index + 1));
    Some((0..count).map(name).collect())
}
