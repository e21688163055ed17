//! The heat map: how often each expert of each layer was selected, kept over restarts.
//!
//! It lies in a small file of its own, named after the model's fingerprint. The file, little-endian: magic (8 bytes),
//! version (u32), fingerprint (32 bytes), layers (u32), experts per layer (u32), tokens (u64), the selections of each
//! expert by layer (f32), and the SHA-256 of all that. It is replaced as a whole: at any moment either the old one or the new
//! one is there. What a killed process leaves behind is removed at the next start.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::policy::DecayingCounts;
use crate::files::Staging;
use crate::fingerprint::Fingerprint;

const MAGIC: [u8; 8] = *b"HRTHHEAT";
const VERSION: u32 = 1;
/// Bytes before the selections, and of the checksum behind them.
const HEADER: usize = 8 + 4 + 32 + 4 + 4 + 8;
const CHECKSUM: usize = 32;

/// Tokens after which half of a selection's weight is gone: some days of use, so that old habits give way.
const HALF_LIFE: f64 = 100_000.0;

/// Before the names of files that are being written.
const UNFINISHED: &str = ".heat-";

/// The heat map of a model in a folder.
#[must_use]
pub fn heat_file(model: &Fingerprint, folder: &Path) -> PathBuf {
    folder.join(format!("{model}.heat"))
}

/// Why a heat map was not loaded or saved. None of it keeps a model from running: log it, and begin with an empty one.
#[derive(Debug, thiserror::Error)]
pub enum HeatError {
    #[error("cannot read the heat map {}: {reason}", path.display())]
    Read { path: PathBuf, reason: io::Error },
    #[error("cannot write the heat map {}: {reason}", path.display())]
    Write { path: PathBuf, reason: io::Error },
    /// Sound, perhaps, but of another model or another version of hearth.
    #[error("the heat map {} is ignored: it {problem}", path.display())]
    Foreign { path: PathBuf, problem: &'static str },
    #[error("the heat map {} is ignored: it {problem}", path.display())]
    Damaged { path: PathBuf, problem: &'static str },
}

/// Selections of each expert of a model, the past fading slowly.
#[derive(Debug, Clone)]
pub struct HeatMap {
    fingerprint: Fingerprint,
    layers: Vec<DecayingCounts>,
    experts: usize,
    /// Selections that were taken in, ever.
    observed: u64,
}

impl HeatMap {
    /// Nothing is known yet. `layers` are those with experts, counted from 0.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, layers: usize, experts: usize) -> Self {
        Self {
            fingerprint,
            layers: vec![DecayingCounts::new(experts, HALF_LIFE); layers],
            experts,
            observed: 0,
        }
    }

    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// How often [`HeatMap::observe`] was called, over all runs.
    #[must_use]
    pub fn observed(&self) -> u64 {
        self.observed
    }

    /// Replaces the counts of a layer. Unknown layers, and counts of another number of experts, are ignored.
    pub fn set_layer(&mut self, layer: usize, counts: DecayingCounts) {
        if let Some(old) = self.layers.get_mut(layer)
            && counts.experts() == self.experts
        {
            *old = counts;
        }
    }

    /// Takes in what one token selected in a layer. Unknown layers and experts are ignored.
    pub fn observe(&mut self, layer: usize, experts: &[u32]) {
        if let Some(counts) = self.layers.get_mut(layer) {
            counts.observe(experts);
            self.observed = self.observed.saturating_add(1);
        }
    }

    /// Selections of each expert of a layer, decayed. Empty for an unknown layer.
    #[must_use]
    pub fn layer(&self, layer: usize) -> Vec<f32> {
        self.layers.get(layer).map_or_else(Vec::new, DecayingCounts::rounded)
    }

    /// Writes the map, atomically.
    ///
    /// # Errors
    /// When the file or its folder cannot be written; what was there before is left as it was.
    pub fn save(&self, path: &Path) -> Result<(), HeatError> {
        let (folder, name) = parts(path);
        let saved = Staging::new(folder, UNFINISHED)
            .lock()
            .and_then(|locked| locked.replace(name, &self.encode()));
        saved.map_err(|reason| HeatError::Write {
            path: path.to_owned(),
            reason,
        })
    }

    /// Reads the map of the model with that fingerprint and geometry; `None` if there is no file. Removes what killed
    /// processes left half written beside it.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or belongs to another model or version. Whatever it holds, no more is
    /// read than a map of this geometry takes.
    pub fn load(
        path: &Path,
        fingerprint: Fingerprint,
        layers: usize,
        experts: usize,
    ) -> Result<Option<Self>, HeatError> {
        let unreadable = |reason| HeatError::Read {
            path: path.to_owned(),
            reason,
        };
        if let Err(error) = Staging::new(parts(path).0, UNFINISHED).clean() {
            tracing::debug!("unfinished heat maps beside {} stay: {error}", path.display());
        }
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let size = HEADER
            + layers
                .saturating_mul(experts)
                .saturating_mul(4)
                .saturating_add(CHECKSUM);
        let mut bytes = Vec::new();
        file.take((size as u64).saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        Self::decode(&bytes, fingerprint, layers, experts)
            .map(Some)
            .map_err(|refusal| refusal.of(path))
    }

    fn encode(&self) -> Vec<u8> {
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(HEADER + self.layers.len() * self.experts * 4 + CHECKSUM);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.fingerprint.as_bytes());
        bytes.extend(number(self.layers.len()));
        bytes.extend(number(self.experts));
        bytes.extend(self.observed.to_le_bytes());
        for layer in 0..self.layers.len() {
            bytes.extend(self.layer(layer).into_iter().flat_map(f32::to_le_bytes));
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        bytes
    }

    fn decode(bytes: &[u8], fingerprint: Fingerprint, layers: usize, experts: usize) -> Result<Self, Refusal> {
        use Refusal::{Damaged, Foreign};
        let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
            return Err(Damaged("is cut off"));
        };
        let mut fields = header;
        if fields.split_off(..8) != Some(&MAGIC) {
            return Err(Foreign("is no heat map"));
        }
        if number(&mut fields) != VERSION {
            return Err(Foreign("was written by another version of hearth"));
        }
        if fields.split_off(..32) != Some(fingerprint.as_bytes()) {
            return Err(Foreign("belongs to another model"));
        }
        let geometry = [number(&mut fields), number(&mut fields)];
        if geometry.map(|size| usize::try_from(size).ok()) != [Some(layers), Some(experts)] {
            return Err(Foreign("is of another geometry"));
        }
        let cells = layers.checked_mul(experts).and_then(|cells| cells.checked_mul(4));
        let Some((cells, checksum)) = cells.and_then(|length| rest.split_at_checked(length)) else {
            return Err(Damaged("is cut off"));
        };
        let sum = Sha256::digest(&bytes[..HEADER + cells.len()]);
        if sum.as_slice() != checksum {
            return Err(Damaged("does not match its checksum"));
        }
        let mut map = Self::new(fingerprint, layers, experts);
        map.observed = fields.try_into().map_or(0, u64::from_le_bytes);
        for (layer, cells) in map.layers.iter_mut().zip(cells.chunks_exact(4 * experts.max(1))) {
            let (cells, _) = cells.as_chunks();
            for (expert, cell) in (0..).zip(cells) {
                // What is no count, `add` ignores.
                layer.add(expert, f64::from(f32::from_le_bytes(*cell)));
            }
        }
        Ok(map)
    }
}

/// The folder of a file, and its name there.
fn parts(path: &Path) -> (&Path, &Path) {
    let name = path.file_name().unwrap_or_default();
    (path.parent().unwrap_or(Path::new("")), Path::new(name))
}

/// [`HeatError`] before the file's name is known.
#[derive(Debug, PartialEq)]
enum Refusal {
    Foreign(&'static str),
    Damaged(&'static str),
}

impl Refusal {
    fn of(self, path: &Path) -> HeatError {
        let path = path.to_owned();
        match self {
            Self::Foreign(problem) => HeatError::Foreign { path, problem },
            Self::Damaged(problem) => HeatError::Damaged { path, problem },
        }
    }
}

/// The next number of a header whose length was checked.
fn number(fields: &mut &[u8]) -> u32 {
    let bytes = fields.split_off(..4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(u32::MAX, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model() -> Fingerprint {
        Fingerprint::of([b"model".as_slice()])
    }

    fn map() -> HeatMap {
        let mut map = HeatMap::new(model(), 3, 8);
        for token in 0..40 {
            for layer in 0..3 {
                map.observe(layer, &[token % 8, 7, 99]);
            }
        }
        map.observe(3, &[1]);
        map
    }

    #[test]
    fn comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = heat_file(&model(), &folder.path().join("new"));
        assert!(HeatMap::load(&path, model(), 3, 8).unwrap().is_none());
        let map = map();
        map.save(&path).unwrap();
        map.save(&path).unwrap();
        let back = HeatMap::load(&path, model(), 3, 8).unwrap().unwrap();
        assert_eq!(back.observed(), 120);
        for layer in 0..4 {
            assert_eq!(back.layer(layer), map.layer(layer));
        }
        // Nothing else stays behind but the lock.
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    #[test]
    fn what_a_killed_writer_leaves_changes_nothing_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = heat_file(&model(), folder.path());
        let map = map();
        map.save(&path).unwrap();
        let left = folder.path().join(".heat-killed");
        let leave = || std::fs::write(&left, &map.encode()[..50]).unwrap();
        leave();
        assert!(HeatMap::load(&path, model(), 3, 8).unwrap().is_some());
        assert!(!left.exists(), "removed at a start");
        leave();
        map.save(&path).unwrap();
        assert!(!left.exists(), "removed when somebody writes");
        assert!(HeatMap::load(&path, model(), 3, 8).unwrap().is_some());
    }

    #[test]
    fn a_failed_write_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = map().save(&file.join("x.heat")).unwrap_err();
        assert!(matches!(error, HeatError::Write { .. }), "{error}");
    }

    #[test]
    fn foreign_maps_are_named() {
        let bytes = map().encode();
        let other = Fingerprint::of([b"mod".as_slice(), b"el"]);
        assert_ne!(other, model());
        let refused = |bytes: &[u8], fingerprint, layers, experts| {
            HeatMap::decode(bytes, fingerprint, layers, experts).unwrap_err()
        };
        assert_eq!(
            refused(&bytes, other, 3, 8),
            Refusal::Foreign("belongs to another model")
        );
        assert_eq!(
            refused(&bytes, model(), 8, 3),
            Refusal::Foreign("is of another geometry")
        );
        let mut future = bytes;
        future[8] = 2;
        let problem = "was written by another version of hearth";
        assert_eq!(refused(&future, model(), 3, 8), Refusal::Foreign(problem));
        assert_eq!(refused(&[b'x'; 200], model(), 3, 8), Refusal::Foreign("is no heat map"));
    }

    proptest! {
        #[test]
        fn damage_is_found(at in 0usize..188, flip in 1u8..=255, cut in 0usize..188, more in 1usize..50) {
            let bytes = map().encode();
            prop_assert_eq!(bytes.len(), 188);
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + more, 0);
            for bytes in [&flipped[..], &bytes[..cut], &longer] {
                prop_assert!(HeatMap::decode(bytes, model(), 3, 8).is_err());
            }
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), sound in any::<bool>()) {
            let mut file = map().encode();
            let keep = if sound { HEADER } else { 0 };
            file.truncate(keep);
            file.extend(bytes);
            let _ = HeatMap::decode(&file, model(), 3, 8);
        }
    }
}
