//! Importance matrices, as `llama-imatrix` writes them: for each tensor the mean square of what comes into each of its columns.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, bail};

use crate::gguf::{Gguf, TensorInfo};

/// Reads the file. Each tensor has its values, for mixtures those of one expert after the other.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<(CString, Vec<f32>)>> {
    let readable = std::fs::File::open(path).map(drop);
    readable.with_context(|| format!("cannot read {}", path.display()))?;
    let file = Gguf::open(path)
        .with_context(|| format!("{} is no importance matrix in the GGUF format; `llama-imatrix --in-file OLD -o NEW.gguf` converts old ones", path.display()))?;
    let mut sums: BTreeMap<&str, [Option<&TensorInfo>; 2]> = BTreeMap::new();
    for tensor in file.tensors() {
        for (place, ending) in [".in_sum2", ".counts"].into_iter().enumerate() {
            if let Some(name) = tensor.name.strip_suffix(ending) {
                sums.entry(name).or_default()[place] = Some(tensor);
            }
        }
    }
    if sums.is_empty() {
        bail!("{} holds no importance matrix", path.display());
    }
    let entries = sums.into_iter().map(|(name, tensors)| {
        let [Some(sums), Some(counts)] = tensors else {
            bail!("{}: the entry {name} is not complete", path.display());
        };
        let (sums, counts) = (numbers(&file, sums)?, numbers(&file, counts)?);
        let Some(means) = means(&sums, &counts) else {
            bail!(
                "{}: the entry {name} has {} sums and {} counts",
                path.display(),
                sums.len(),
                counts.len()
            );
        };
        Ok((CString::new(name)?, means))
    });
    entries.collect()
}

fn numbers(file: &Gguf, tensor: &TensorInfo) -> anyhow::Result<Vec<f32>> {
    if tensor.kind.name != "F32" {
        bail!("{}: {} is not of type F32", file.path().display(), tensor.name);
    }
    let bytes = file.data(tensor).as_chunks::<4>().0;
    Ok(bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Sums over their counts; there is a count for each expert. An expert that no text reached has columns that are all alike.
fn means(sums: &[f32], counts: &[f32]) -> Option<Vec<f32>> {
    if counts.is_empty() || sums.is_empty() || !sums.len().is_multiple_of(counts.len()) {
        return None;
    }
    let columns = sums.len() / counts.len();
    let experts = sums.chunks(columns).zip(counts);
    let means =
        experts.flat_map(|(sums, count)| sums.iter().map(move |sum| if *count > 0.0 { sum / count } else { 1.0 }));
    Some(means.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgufWriter, TensorType};

    #[test]
    fn sums_are_divided_by_the_counts_of_their_expert() {
        assert_eq!(
            means(&[2.0, 4.0, 9.0, 9.0], &[2.0, 0.0]),
            Some(vec![1.0, 2.0, 1.0, 1.0])
        );
        assert_eq!(means(&[1.0, 2.0, 3.0], &[1.0, 1.0]), None);
        assert_eq!(means(&[], &[]), None);
    }

    #[test]
    fn files_are_read_and_others_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imatrix.gguf");
        let kind = TensorType::from_name("F32").unwrap();
        let write = |names: &[&str]| {
            let mut writer = GgufWriter::new();
            writer.str("general.type", "imatrix");
            for name in names {
                writer.tensor(name, kind, &[8]);
            }
            std::fs::write(&path, writer.zeros()).unwrap();
        };
        write(&["blk.0.x.weight.in_sum2", "blk.0.x.weight.counts"]);
        let read = super::read(&path).unwrap();
        assert_eq!(read[0].0.to_str(), Ok("blk.0.x.weight"));
        assert_eq!(read[0].1, [1.0; 8]);
        write(&["blk.0.x.weight.in_sum2"]);
        assert!(super::read(&path).unwrap_err().to_string().contains("not complete"));
        write(&["token_embd.weight"]);
        assert!(super::read(&path).is_err());
        let none = super::read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(
            none.starts_with("cannot read") && !none.contains("llama-imatrix"),
            "{none}"
        );
        std::fs::write(&path, b"old format").unwrap();
        assert!(super::read(&path).unwrap_err().to_string().contains("llama-imatrix"));
    }
}
