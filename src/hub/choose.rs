//! Which files of a repository belong together, and which of them are meant.

use std::collections::BTreeMap;

use serde::Serialize;

use super::listing::RemoteFile;

/// A model of a repository: one file, or all parts of a split one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Path of the first file.
    pub file: String,
    /// Such as `Q4_K_M`; `None` where the name says none.
    pub quant: Option<String>,
    pub bytes: u64,
    /// How many parts the model has.
    pub parts: usize,
    /// Its files in order. Fewer than `parts` where the repository lacks some.
    #[serde(skip)]
    pub files: Vec<RemoteFile>,
}

/// The GGUF files of a repository. Projectors (`mmproj`) and importance matrices are no models of their own.
#[must_use]
pub fn groups(files: &[RemoteFile]) -> Vec<Group> {
    let mut groups: BTreeMap<(String, usize), Vec<RemoteFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| is_model(&file.path)) {
        let key = match split(&file.path) {
            Some((stem, _, parts)) => (stem.to_owned(), parts),
            None => (file.path.clone(), 1),
        };
        groups.entry(key).or_default().push(file.clone());
    }
    let groups = groups.into_iter().map(|((stem, parts), mut files)| {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Group {
            file: files[0].path.clone(),
            quant: quantization(&stem),
            bytes: files.iter().map(|file| file.bytes).sum(),
            parts,
            files,
        }
    });
    let mut groups: Vec<Group> = groups.collect();
    groups.sort_by_key(|group| group.bytes);
    groups
}

/// The group that a file belongs to, whichever of its parts the name is of.
#[must_use]
pub fn named<'g>(groups: &'g [Group], path: &str) -> Option<&'g Group> {
    groups
        .iter()
        .find(|group| group.files.iter().any(|file| file.path == path))
}

/// Those names that are most like what was asked for, at most three.
#[must_use]
pub fn near<'n>(asked: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let asked = asked.to_lowercase();
    let mut names: Vec<(f64, &str)> = names
        .map(|name| (strsim::jaro_winkler(&asked, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    names.into_iter().take(3).map(|(_, name)| name).collect()
}

fn is_model(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    name.ends_with(".gguf") && !name.contains("mmproj") && !name.contains("imatrix")
}

/// Stem, number and count of `STEM-00002-of-00003.gguf`.
fn split(path: &str) -> Option<(&str, usize, usize)> {
    let rest = path.strip_suffix(".gguf")?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse::<usize>().ok()).flatten();
    let (number, count) = (digits(number)?, digits(count)?);
    (number >= 1 && number <= count).then_some((stem, number, count))
}

/// The last word of a name that is one of a quantization, or of a folder above it.
fn quantization(path: &str) -> Option<String> {
    let path = path.strip_suffix(".gguf").unwrap_or(path);
    let mut words = path.rsplit(['/', '-', '.', ' ']);
    words.find(|word| is_quantization(word)).map(str::to_uppercase)
}

fn is_quantization(word: &str) -> bool {
    let word = word.to_uppercase();
    if ["F16", "BF16", "F32", "FP16", "FP8", "MXFP4", "MXFP4_MOE", "NVFP4"].contains(&word.as_str()) {
        return true;
    }
    let rest = ["IQ", "TQ", "Q"].iter().find_map(|prefix| word.strip_prefix(prefix));
    // `Q4_K_M`, `IQ4_XS`, `Q8_0`; `Q4` alone is used, too.
    rest.is_some_and(|rest| {
        let mut parts = rest.split('_');
        let bits = parts.next().unwrap_or_default();
        bits.len() == 1
            && bits.chars().all(|c| c.is_ascii_digit())
            && parts.all(|part| !part.is_empty() && part.len() <= 4 && part.chars().all(|c| c.is_ascii_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<RemoteFile> {
        let file = |name: &&str| RemoteFile {
            path: (*name).to_owned(),
            bytes: 10,
            sha256: None,
        };
        names.iter().map(file).collect()
    }

    #[test]
    fn quantizations_are_found_in_names() {
        for (path, quant) in [
            ("Qwen3-Next-80B-A3B-Instruct-Q4_K_M.gguf", Some("Q4_K_M")),
            ("UD-Q2_K_XL/Model-UD-Q2_K_XL", Some("Q2_K_XL")),
            ("MN-12B-Mag-Mell-R1.Q6_K.gguf", Some("Q6_K")),
            ("model-iq4_xs.gguf", Some("IQ4_XS")),
            ("gpt-oss-20b-mxfp4.gguf", Some("MXFP4")),
            ("BF16/model.gguf", Some("BF16")),
            ("Qwen3-8B.gguf", None),
            ("q-model.gguf", None),
        ] {
            assert_eq!(quantization(path).as_deref(), quant, "{path}");
        }
    }

    #[test]
    fn parts_belong_together_and_projectors_are_left_out() {
        let files = files(&[
            "README.md",
            "big-Q8_0-00002-of-00002.gguf",
            "big-Q8_0-00001-of-00002.gguf",
            "small-Q4_0.gguf",
            "mmproj-F16.gguf",
            "odd-Q5_0-00001-of-00003.gguf",
        ]);
        let groups = groups(&files);
        let told: Vec<_> = groups
            .iter()
            .map(|group| {
                (
                    group.file.as_str(),
                    group.quant.as_deref(),
                    group.files.len(),
                    group.parts,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("odd-Q5_0-00001-of-00003.gguf", Some("Q5_0"), 1, 3),
                ("small-Q4_0.gguf", Some("Q4_0"), 1, 1),
                ("big-Q8_0-00001-of-00002.gguf", Some("Q8_0"), 2, 2),
            ]
        );
        let second = named(&groups, "big-Q8_0-00002-of-00002.gguf").unwrap();
        assert_eq!(second.bytes, 20);
        assert!(named(&groups, "README.md").is_none());
    }

    #[test]
    fn near_names_are_offered() {
        let names = ["small-Q4_K_M.gguf", "small-Q8_0.gguf", "README.md"];
        assert_eq!(near("small-q4_k_s.gguf", names.into_iter())[0], "small-Q4_K_M.gguf");
        assert!(near("xyz", names.into_iter()).is_empty());
    }
}
