//! The header of one file: metadata and tensor directory, checked against the file's length.

use std::collections::HashSet;
use std::ops::Range;

use super::cursor::Cursor;
use super::error::Damage;
use super::tensor::{TensorInfo, TensorType};
use super::value::Place;

/// ggml's limit on names, the terminating NUL included.
const MAX_NAME: usize = 64;
const DEFAULT_ALIGNMENT: u64 = 32;
/// Entries to reserve memory for in advance: a count in a sparse file can be huge without a byte behind it.
const RESERVE: usize = 4096;
/// Least bytes of a metadata entry: an empty key, a type and one byte.
const MIN_ENTRY: usize = 8 + 4 + 1;
/// Least bytes of a tensor entry: an empty name, no dimensions, type and offset.
const MIN_TENSOR: usize = 8 + 4 + 4 + 8;

/// What the header of one file says.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) entries: Vec<(Range<usize>, Place)>,
    pub(super) tensors: Vec<TensorInfo>,
    /// Bytes of all that is no tensor data.
    pub(super) length: usize,
}

/// Reads and checks a header. Never reads tensor data, so that a sparse file with a real header will do.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, Damage> {
    let mut cursor = Cursor::new(bytes, 0);
    let magic = cursor.u32("the magic number")?.to_le_bytes();
    if &magic != b"GGUF" {
        let problem = if magic.iter().rev().eq(b"GGUF") {
            "is big-endian; only little-endian files can be read"
        } else {
            "is not `GGUF`: this is not a GGUF file"
        };
        return Err(Damage::new("the magic number", 0, problem));
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => {}
        1 => {
            let problem = "is 1, which llama.cpp no longer reads; convert the model again";
            return Err(Damage::new("the version", 4, problem));
        }
        other if matches!(other.swap_bytes(), 1..=3) => {
            return Err(Damage::new(
                "the version",
                4,
                "is big-endian; only little-endian files can be read",
            ));
        }
        other => {
            let problem = format!("is {other}, but only 2 and 3 are known");
            return Err(Damage::new("the version", 4, problem));
        }
    }
    let tensor_count = cursor.count("the tensor count", MIN_TENSOR)?;
    let entry_count = cursor.count("the metadata count", MIN_ENTRY)?;
    let entries = entries(&mut cursor, bytes, entry_count)?;
    let alignment = alignment(bytes, &entries)?;
    let mut tensors = tensors(&mut cursor, bytes, tensor_count)?;
    place_tensors(&mut tensors, cursor.at(), alignment, bytes.len() as u64)?;
    Ok(Header {
        version,
        entries,
        tensors: tensors.into_iter().map(|(tensor, _)| tensor).collect(),
        length: cursor.at(),
    })
}

fn entries(cursor: &mut Cursor<'_>, bytes: &[u8], count: usize) -> Result<Vec<(Range<usize>, Place)>, Damage> {
    let mut entries = Vec::with_capacity(count.min(RESERVE));
    let mut seen = HashSet::with_capacity(count.min(RESERVE));
    for index in 0..count {
        let at = cursor.at();
        let key = cursor.string(&format!("the key of metadata entry {index}"))?;
        let name = text(bytes, &key);
        if name.is_empty() {
            return Err(Damage::new(
                format!("the key of metadata entry {index}"),
                at,
                "is empty",
            ));
        }
        if !seen.insert(name) {
            return Err(Damage::new(name, at, "stands twice in the metadata"));
        }
        let place = Place::read(cursor, bytes, name)?;
        entries.push((key, place));
    }
    Ok(entries)
}

fn alignment(bytes: &[u8], entries: &[(Range<usize>, Place)]) -> Result<u64, Damage> {
    let key = "general.alignment";
    let Some((at, place)) = entries.iter().find(|(name, _)| text(bytes, name) == key) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let value = super::Value::at(place, bytes);
    match value.as_u64() {
        Some(alignment) if alignment.is_power_of_two() && alignment <= 1 << 20 => Ok(alignment),
        _ => {
            let problem = format!("is {value}, not a power of two up to 1 MiB");
            Err(Damage::new(key, at.start, problem))
        }
    }
}

/// The directory; offsets are still relative to the data. Each entry comes with the place of its offset field.
fn tensors(cursor: &mut Cursor<'_>, bytes: &[u8], count: usize) -> Result<Vec<(TensorInfo, usize)>, Damage> {
    let mut tensors = Vec::with_capacity(count.min(RESERVE));
    let mut seen = HashSet::with_capacity(count.min(RESERVE));
    for index in 0..count {
        let at = cursor.at();
        let name = cursor.string(&format!("the name of tensor {index}"))?;
        let name = text(bytes, &name);
        if name.is_empty() || name.len() >= MAX_NAME {
            let problem = format!("has {} bytes, but 1 to {} are allowed", name.len(), MAX_NAME - 1);
            return Err(Damage::new(format!("the name of tensor {index}"), at, problem));
        }
        if !seen.insert(name) {
            return Err(Damage::new(format!("tensor {name}"), at, "stands twice in the file"));
        }
        let field = format!("tensor {name}");
        let at = cursor.at();
        let dimensions = cursor.u32(&field)?;
        let dimensions = match usize::try_from(dimensions) {
            Ok(dimensions @ 1..=4) => dimensions,
            _ => {
                let problem = format!("has {dimensions} dimensions, but 1 to 4 are possible");
                return Err(Damage::new(field, at, problem));
            }
        };
        let mut shape = [1; 4];
        for size in &mut shape[..dimensions] {
            *size = cursor.u64(&field)?;
        }
        let type_at = cursor.at();
        let id = cursor.u32(&field)?;
        let kind = TensorType::from_id(id)
            .ok_or_else(|| Damage::new(&field, type_at, format!("has the type {id}, which ggml does not know")))?;
        let bytes = data_bytes(shape, kind).map_err(|problem| Damage::new(&field, at, problem))?;
        let offset_at = cursor.at();
        let offset = cursor.u64(&field)?;
        let tensor = TensorInfo {
            name: name.to_owned(),
            kind,
            shape,
            dimensions,
            offset,
            bytes,
            part: 0,
        };
        tensors.push((tensor, offset_at));
    }
    Ok(tensors)
}

/// Bytes of a tensor's data. ggml counts elements and bytes in signed 64-bit numbers.
fn data_bytes(shape: [u64; 4], kind: TensorType) -> Result<u64, String> {
    if shape.contains(&0) {
        return Err(format!("has an empty dimension in its shape {shape:?}"));
    }
    if !shape[0].is_multiple_of(kind.block) {
        return Err(format!(
            "has rows of {} weights, but {} stores them in blocks of {}",
            shape[0], kind.name, kind.block
        ));
    }
    let limit = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
    shape[1..]
        .iter()
        .try_fold(shape[0], |product, size| product.checked_mul(*size))
        .and_then(|elements| (elements / kind.block).checked_mul(kind.bytes))
        .filter(|bytes| *bytes <= limit)
        .ok_or_else(|| format!("has the shape {shape:?}, which is larger than any file"))
}

/// Makes offsets absolute, and checks that all data lies in the file, aligned and without overlap.
fn place_tensors(
    tensors: &mut [(TensorInfo, usize)],
    header_end: usize,
    alignment: u64,
    file: u64,
) -> Result<(), Damage> {
    let start = (header_end as u64).next_multiple_of(alignment);
    for (tensor, at) in tensors.iter_mut() {
        let field = || format!("tensor {}", tensor.name);
        if !tensor.offset.is_multiple_of(alignment) {
            let problem = format!("has its data at {}, not at a multiple of {alignment}", tensor.offset);
            return Err(Damage::new(field(), *at, problem));
        }
        let begin = start.checked_add(tensor.offset);
        let end = begin.and_then(|begin| begin.checked_add(tensor.bytes));
        match (begin, end) {
            (Some(begin), Some(end)) if end <= file => tensor.offset = begin,
            _ => {
                let problem = format!(
                    "has {} bytes of data at {} + {start}, but the file ends at {file}; it may be cut off",
                    tensor.bytes, tensor.offset
                );
                return Err(Damage::new(field(), *at, problem));
            }
        }
    }
    let mut order: Vec<&(TensorInfo, usize)> = tensors.iter().collect();
    order.sort_by_key(|(tensor, _)| tensor.offset);
    for pair in order.windows(2) {
        let [(first, _), (second, at)] = pair else { continue };
        if first.offset + first.bytes > second.offset {
            let problem = format!("shares its data with {}", first.name);
            return Err(Damage::new(format!("tensor {}", second.name), *at, problem));
        }
    }
    // llama.cpp reads only files whose data lies in the order of the directory, without gaps.
    let mut expected = start;
    for (tensor, at) in tensors.iter() {
        if tensor.offset != expected {
            let problem = format!(
                "has its data at byte {}, but llama.cpp expects it at byte {expected}, behind the tensor before it",
                tensor.offset
            );
            return Err(Damage::new(format!("tensor {}", tensor.name), *at, problem));
        }
        // Cannot overflow: the end lies in the file, and the alignment is small.
        expected = (tensor.offset + tensor.bytes).next_multiple_of(alignment);
    }
    Ok(())
}

/// The text of a range that was checked to be UTF-8.
pub(super) fn text<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a str {
    std::str::from_utf8(&bytes[range.clone()]).unwrap_or_default()
}
