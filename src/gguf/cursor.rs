//! Reads little-endian numbers and strings from bytes that may be anything.

use std::ops::Range;

use super::error::Damage;

/// A position in the bytes of a file. No method reads outside of them or allocates.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, length: usize, field: &str) -> Result<&'a [u8], Damage> {
        let end = self.at.checked_add(length);
        let Some(bytes) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            let left = self.left();
            let problem = format!("needs {length} bytes, but the file ends after {left}");
            return Err(Damage::new(field, self.at, problem));
        };
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], Damage> {
        let at = self.at;
        let bytes = self.take(N, field)?;
        bytes.try_into().map_err(|_| Damage::new(field, at, "is cut off"))
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A count of things that take `least` bytes each: more of them than the file has bytes for are refused before
    /// anything is allocated for them.
    pub(super) fn count(&mut self, field: &str, least: usize) -> Result<usize, Damage> {
        let at = self.at;
        let count = self.u64(field)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / least.max(1) => Ok(count),
            _ => {
                let problem = format!(
                    "is {count}, more than the {} bytes behind it can hold; the file may be cut off",
                    self.left()
                );
                Err(Damage::new(field, at, problem))
            }
        }
    }

    /// Where the bytes of a string lie; they are UTF-8.
    pub(super) fn string(&mut self, field: &str) -> Result<Range<usize>, Damage> {
        let range = self.raw_string(field)?;
        match std::str::from_utf8(&self.bytes[range.clone()]) {
            Ok(_) => Ok(range),
            Err(error) => Err(Damage::new(
                field,
                range.start + error.valid_up_to(),
                "is not valid UTF-8",
            )),
        }
    }

    /// Where the bytes of a string lie, whatever they are.
    pub(super) fn raw_string(&mut self, field: &str) -> Result<Range<usize>, Damage> {
        let at = self.at;
        let length = self.u64(field)?;
        let start = self.at;
        if length > self.left() as u64 {
            let problem = format!(
                "is {length} bytes long, but only {} follow; the file may be cut off",
                self.left()
            );
            return Err(Damage::new(field, at, problem));
        }
        let length = usize::try_from(length).map_err(|_| Damage::new(field, at, "is too long"))?;
        self.take(length, field)?;
        Ok(start..self.at)
    }

    /// Skips `count` things of `size` bytes and returns where they lie.
    pub(super) fn skip(&mut self, count: usize, size: usize, field: &str) -> Result<Range<usize>, Damage> {
        let start = self.at;
        let length = count
            .checked_mul(size)
            .ok_or_else(|| Damage::new(field, start, format!("{count} entries of {size} bytes are too many")))?;
        self.take(length, field)?;
        Ok(start..self.at)
    }
}
