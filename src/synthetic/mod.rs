//! Synthetic models: GGUF files with the shapes of real models and random weights, for plans, tests and benchmarks when the
//! real files are too large or not available.
//!
//! Their output is noise, but llama.cpp runs the same operations, reads the same number of bytes and routes to as many
//! experts as with the real model.

mod fill;
mod mix;
mod shape;
mod tensors;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub use mix::{Mix, mix_names};
pub use shape::{Arch, Shape};

use crate::files;
use crate::gguf::GgufWriter;
use fill::Filler;
use tensors::{Planned, plan};

/// What names of unfinished files begin with.
const UNFINISHED: &str = ".synthetic-";

/// Describes the file to write.
#[derive(Debug, Clone)]
pub struct Synthetic {
    pub shape: Shape,
    pub mix: Mix,
    /// How unevenly the router selects experts: with 0 all are alike; with 1 its weights fall as one over the rank.
    pub skew: f64,
    /// The same seed makes the same file.
    pub seed: u64,
    /// Only the header; the data is a hole in the file that takes no space on disk and reads as zeros.
    pub header_only: bool,
}

impl Synthetic {
    /// All experts alike, and with its data.
    #[must_use]
    pub fn new(shape: Shape, mix: Mix) -> Self {
        Self {
            shape,
            mix,
            skew: 0.0,
            seed: 1,
            header_only: false,
        }
    }

    /// Writes the file, calling `progress(written, total)` in bytes. Returns the length of the file.
    ///
    /// The file gets its name only when it is complete.
    ///
    /// # Errors
    /// [`SyntheticError::Shape`] for impossible shapes, [`SyntheticError::Io`] for failures of the file system.
    pub fn write(&self, path: &Path, mut progress: impl FnMut(u64, u64)) -> Result<u64, SyntheticError> {
        self.shape.check()?;
        let tensors = plan(&self.shape, &self.mix)?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        files::remove_abandoned(folder, UNFINISHED);
        let file = files::claimed(folder, UNFINISHED)?;
        let total = self.write_to(file.as_file(), &tensors, &mut progress)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(total)
    }

    fn write_to(&self, file: &File, tensors: &[Planned], progress: &mut dyn FnMut(u64, u64)) -> io::Result<u64> {
        let mut writer = GgufWriter::new();
        self.shape.metadata(&mut writer, self.mix.file_type);
        let sizes: Vec<u64> = tensors
            .iter()
            .map(|tensor| writer.tensor(&tensor.name, tensor.kind, &tensor.dims))
            .collect();
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let (header, data) = writer.write_header(&mut out)?;
        let total = header + data;
        if self.header_only {
            out.flush()?;
            file.set_len(total)?;
            return Ok(total);
        }
        let mut filler = Filler::new(self.seed);
        let mut written = header;
        for (tensor, bytes) in tensors.iter().zip(sizes) {
            filler.write(tensor, bytes, self.skew, &mut out)?;
            let padding = GgufWriter::padding(bytes);
            out.write_all(&[0; 32][..usize::try_from(padding).unwrap_or(0)])?;
            written += bytes + padding;
            progress(written, total);
        }
        out.flush()?;
        Ok(total)
    }
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// The shape is impossible.
    #[error("{0}")]
    Shape(String),
    #[error("cannot write the file: {0}")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests;
