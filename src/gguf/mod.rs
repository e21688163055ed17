//! A memory-mapped, zero-copy reader of GGUF files that trusts nothing in them.
//!
//! llama.cpp aborts the process on some damaged files; hearth inspects a file here before llama.cpp sees it. The format
//! is described in ggml's `docs/gguf.md`. This module depends on no other.

mod cursor;
mod error;
mod file_type;
mod geometry;
mod header;
mod keys;
mod limits;
mod map;
mod split;
mod ssm;
mod tensor;
mod tokenizer;
mod value;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

pub use error::{Damage, GgufError, printable};
pub use file_type::file_type_name;
pub use geometry::Geometry;
pub use limits::{MAX_EXPERTS, MAX_LAYERS};
pub use map::name_broken_maps;
pub use ssm::SsmGeometry;
pub use tensor::{TENSOR_TYPES, TensorInfo, TensorType};
pub use tokenizer::Tokenizer;
pub use value::{Array, Value, ValueType};
pub use write::GgufWriter;

use header::{Header, text};
use map::map;
use value::Place;

/// A model: one GGUF file, or all files of a split one.
#[derive(Debug)]
pub struct Gguf {
    /// At least one; the first holds the metadata.
    parts: Vec<Part>,
    tensors: Vec<TensorInfo>,
}

/// One mapped file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    map: Mmap,
    header: Header,
}

impl Part {
    fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |reason| GgufError::Io {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        let map = map(&file).map_err(io)?;
        let header = header::parse(&map).map_err(|damage| GgufError::Damaged {
            path: path.to_owned(),
            field: damage.field,
            offset: damage.offset,
            problem: damage.problem,
        })?;
        Ok(Self {
            path: path.to_owned(),
            map,
            header,
        })
    }

    fn place(&self, key: &str) -> Option<&Place> {
        let mut entries = self.header.entries.iter();
        let (_, place) = entries.find(|(name, _)| text(&self.map, name) == key)?;
        Some(place)
    }

    fn get(&self, key: &str) -> Option<Value<'_>> {
        Some(Value::at(self.place(key)?, &self.map))
    }
}

impl Gguf {
    /// Opens and checks a file; if it is the first part of a split model, all parts.
    ///
    /// # Errors
    /// [`GgufError`] with the field and the byte of the first thing that is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let first = Part::open(path.as_ref())?;
        let mut parts = vec![first];
        split::open_rest(&mut parts)?;
        let tensors = split::join(&parts)?;
        Ok(Self { parts, tensors })
    }

    /// Checks bytes as [`Gguf::open`] checks a file, without opening one.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(bytes: &[u8]) -> Result<(), Damage> {
        let header = header::parse(bytes)?;
        // Reading each value is part of the check: it must not fail on what was accepted.
        for (_, place) in &header.entries {
            if let Value::Array(array) = Value::at(place, bytes) {
                let read = array.iter().count();
                debug_assert_eq!(read, array.len);
            }
        }
        Ok(())
    }

    /// The file that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// Number of files.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Version of the format, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.parts[0].header.version
    }

    /// All metadata of the first file, in its order.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let part = &self.parts[0];
        part.header
            .entries
            .iter()
            .map(|(name, place)| (text(&part.map, name), Value::at(place, &part.map)))
    }

    /// A metadata value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.parts[0].get(key)
    }

    /// The tensors of all parts, in the order of the files.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The bytes of a tensor, in the map: nothing is read until they are used.
    #[must_use]
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        // The directory was checked against the length of the file.
        let range = usize::try_from(tensor.offset)
            .ok()
            .zip(usize::try_from(tensor.bytes).ok());
        range
            .and_then(|(offset, bytes)| self.parts.get(tensor.part)?.map.get(offset..offset + bytes))
            .unwrap_or_default()
    }

    /// Metadata and tensor directory of the first file, as they lie there.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8] {
        let part = &self.parts[0];
        part.map.get(..part.header.length).unwrap_or(&part.map)
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Number of weights of all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::elements).sum()
    }

    /// The shape of the model that the metadata describes.
    ///
    /// # Errors
    /// [`GgufError::Model`] with the key that is missing or makes no sense.
    pub fn geometry(&self) -> Result<Geometry, GgufError> {
        Geometry::read(self)
    }
}

#[cfg(test)]
mod tests;
