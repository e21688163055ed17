//! Writes GGUF files: for models that hearth makes itself, and for tests.

use std::io::{self, Write};

use super::tensor::TensorType;
use super::value::ValueType;

const ALIGNMENT: u64 = 32;

/// Collects metadata and a tensor directory, writes them, and then lets the data stream.
#[derive(Debug, Default)]
pub struct GgufWriter {
    entries: Vec<u8>,
    entry_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    /// Bytes of all data so far, padding included.
    data: u64,
}

impl GgufWriter {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn entry(&mut self, key: &str, kind: ValueType) {
        string(&mut self.entries, key.as_bytes());
        self.entries.extend((kind as u32).to_le_bytes());
        self.entry_count += 1;
    }

    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.entry(key, ValueType::Bool);
        self.entries.push(u8::from(value));
        self
    }

    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        self.entry(key, ValueType::String);
        string(&mut self.entries, value.as_bytes());
        self
    }

    pub fn strings<T: AsRef<[u8]>>(&mut self, key: &str, values: &[T]) -> &mut Self {
        self.array(key, ValueType::String, values.len());
        for value in values {
            string(&mut self.entries, value.as_ref());
        }
        self
    }

    pub fn bools(&mut self, key: &str, values: &[bool]) -> &mut Self {
        self.array(key, ValueType::Bool, values.len());
        self.entries.extend(values.iter().map(|value| u8::from(*value)));
        self
    }

    fn array(&mut self, key: &str, element: ValueType, count: usize) {
        self.entry(key, ValueType::Array);
        self.entries.extend((element as u32).to_le_bytes());
        self.entries.extend((count as u64).to_le_bytes());
    }

    /// Adds a tensor to the directory and returns the bytes of its data, which must follow in the same order, each
    /// padded with [`GgufWriter::padding`]. `shape` has the fastest dimension first, rows in whole blocks.
    pub fn tensor(&mut self, name: &str, kind: TensorType, shape: &[u64]) -> u64 {
        string(&mut self.tensors, name.as_bytes());
        self.tensors
            .extend(u32::try_from(shape.len()).unwrap_or(u32::MAX).to_le_bytes());
        for size in shape {
            self.tensors.extend(size.to_le_bytes());
        }
        self.tensors.extend(kind.id.to_le_bytes());
        self.tensors.extend(self.data.to_le_bytes());
        self.tensor_count += 1;
        let bytes = shape.iter().product::<u64>() / kind.block * kind.bytes;
        self.data += bytes + Self::padding(bytes);
        bytes
    }

    /// Zero bytes to write after `bytes` bytes of data.
    #[must_use]
    pub fn padding(bytes: u64) -> u64 {
        bytes.next_multiple_of(ALIGNMENT) - bytes
    }

    /// Writes everything up to the first byte of data. Returns (bytes written, bytes of data to follow).
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_header(&self, out: &mut impl Write) -> io::Result<(u64, u64)> {
        let mut head = Vec::new();
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend(self.tensor_count.to_le_bytes());
        head.extend(self.entry_count.to_le_bytes());
        head.extend(&self.entries);
        head.extend(&self.tensors);
        let end = (head.len() as u64).next_multiple_of(ALIGNMENT);
        head.resize(usize::try_from(end).unwrap_or(head.len()), 0);
        out.write_all(&head)?;
        Ok((end, self.data))
    }

    /// The whole file with zeros for data; for small ones.
    #[must_use]
    pub fn zeros(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Ok((header, data)) = self.write_header(&mut out) {
            out.resize(usize::try_from(header + data).unwrap_or(out.len()), 0);
        }
        out
    }
}

/// Makes a method for a number and one for an array of them.
macro_rules! numbers {
    ($($one:ident, $many:ident: $kind:ident;)*) => {
        impl GgufWriter {
            $(
                pub fn $one(&mut self, key: &str, value: $one) -> &mut Self {
                    self.entry(key, ValueType::$kind);
                    self.entries.extend(value.to_le_bytes());
                    self
                }

                pub fn $many(&mut self, key: &str, values: &[$one]) -> &mut Self {
                    self.array(key, ValueType::$kind, values.len());
                    self.entries.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                    self
                }
            )*
        }
    };
}

numbers! {
    u8, u8s: U8;
    i8, i8s: I8;
    u16, u16s: U16;
    i16, i16s: I16;
    u32, u32s: U32;
    i32, i32s: I32;
    f32, f32s: F32;
    u64, u64s: U64;
    i64, i64s: I64;
    f64, f64s: F64;
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}
