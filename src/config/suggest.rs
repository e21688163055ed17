//! "Did you mean": the nearest of the words that would have been right.

/// What other programs call our keys: their users should not have to search.
const SYNONYMS: [(&str, &str); 33] = [
    ("address", "host"),
    ("alias", "aliases"),
    ("allowed_origins", "cors"),
    ("base", "model"),
    ("bind", "host"),
    ("concurrency", "parallel"),
    ("context_length", "context"),
    ("context_size", "context"),
    ("ctx_size", "context"),
    ("cors_origins", "cors"),
    ("file", "path"),
    ("id", "name"),
    ("listen", "host"),
    ("max_body_size", "body_limit"),
    ("max_model_len", "context"),
    ("max_new_tokens", "max_tokens"),
    ("max_num_seqs", "parallel"),
    ("max_seq_len", "context"),
    ("model_name", "name"),
    ("model_path", "path"),
    ("models", "model"),
    ("n_ctx", "context"),
    ("n_parallel", "parallel"),
    ("n_predict", "max_tokens"),
    ("n_threads", "threads"),
    ("num_ctx", "context"),
    ("num_predict", "max_tokens"),
    ("repetition_penalty", "repeat_penalty"),
    ("presets", "preset"),
    ("slots", "parallel"),
    ("temp", "temperature"),
    ("threads_http", "threads"),
    ("workers", "threads"),
];

/// The candidate that was probably meant, if one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let meant = SYNONYMS
        .iter()
        .find(|(theirs, _)| *theirs == word)
        .map(|(_, ours)| *ours);
    candidates
        .into_iter()
        .map(|candidate| match meant {
            Some(ours) if ours == candidate => (0, candidate),
            _ => (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate),
        })
        // A third of the letters may be wrong, but not all of a short word.
        .filter(|(distance, candidate)| *distance <= (word.len().max(candidate.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}
