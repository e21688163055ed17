//! What a user means by `hf:owner/repo/file` or an address.

use reqwest::Url;

use super::error::PullError;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A repository of the hub.
    Hub {
        /// `owner/repo`.
        repo: String,
        /// Path of a file there.
        file: Option<String>,
        /// The quantization that is wanted, as in `hf:owner/repo:Q4_K_M`.
        quant: Option<String>,
        /// Branch, tag or commit, where an address names one.
        revision: Option<String>,
    },
    /// Any other web server.
    Url(Url),
}

/// Hosts whose addresses mean repositories of the hub, besides the configured one.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

impl Source {
    /// Reads `hf:owner/repo`, `hf:owner/repo:QUANT`, `hf:owner/repo/path/to/file`, or an address. Addresses of pages and files of
    /// the hub, whose base is `endpoint`, mean its repositories.
    ///
    /// # Errors
    /// When the text is none of these.
    pub fn parse(text: &str, endpoint: &Url) -> Result<Self, PullError> {
        let text = text.trim();
        for prefix in ["hf://", "hf:", "hf.co/", "huggingface.co/"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return repository(rest);
            }
        }
        let url = match Url::parse(text) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) => url,
            _ => {
                return Err(
                    PullError::usage(format!("{text:?} is neither `hf:owner/repo/file` nor an address")).hint(
                        "for example hf:bartowski/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M, or https://example.org/model.gguf",
                    ),
                );
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PullError::usage(
                "addresses with a user name or a password are not taken",
            ));
        }
        let of_hub = same_origin(&url, endpoint)
            || url.scheme() == "https" && url.host_str().is_some_and(|host| HOSTS.contains(&host));
        if of_hub && let Some(source) = page_of_hub(&url) {
            return Ok(source);
        }
        Ok(Self::Url(url))
    }
}

/// `owner/repo`, `owner/repo:QUANT` or `owner/repo/path/to/file`.
fn repository(text: &str) -> Result<Source, PullError> {
    let wrong = |why: &str| {
        PullError::usage(format!("`hf:{text}`: {why}"))
            .hint("write hf:owner/repo/file, or hf:owner/repo with --quant to choose among its files")
    };
    let mut parts = text.trim_end_matches('/').splitn(3, '/');
    let (owner, repo, file) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next());
    let (repo, quant) = match repo.split_once(':') {
        Some((_, "")) => return Err(wrong("no quantization is named after the colon")),
        Some((repo, quant)) => (repo, Some(quant.to_owned())),
        None => (repo, None),
    };
    if !is_name(owner) || !is_name(repo) {
        return Err(wrong("a repository is `owner/name`"));
    }
    if let Some(file) = file {
        if quant.is_some() {
            return Err(wrong("it names a quantization and a file"));
        }
        if !is_path(file) {
            return Err(wrong("that is no path of a file"));
        }
    }
    Ok(Source::Hub {
        repo: format!("{owner}/{repo}"),
        file: file.map(str::to_owned),
        quant,
        revision: None,
    })
}

/// `/owner/repo`, `/owner/repo/blob/main/file` and `/owner/repo/resolve/main/file`.
fn page_of_hub(url: &Url) -> Option<Source> {
    let parts: Vec<&str> = url.path_segments()?.filter(|part| !part.is_empty()).collect();
    let (owner, repo) = (*parts.first()?, *parts.get(1)?);
    if !is_name(owner) || !is_name(repo) {
        return None;
    }
    let (file, revision) = match parts.get(2) {
        None => (None, None),
        Some(&"tree") => (None, parts.get(3).map(|part| (*part).to_owned())),
        Some(&("blob" | "resolve")) if parts.len() > 4 => {
            let file = parts[4..].join("/");
            if !is_path(&file) || file.contains('%') {
                return None;
            }
            (Some(file), Some(parts[3].to_owned()))
        }
        Some(_) => return None,
    };
    Some(Source::Hub {
        repo: format!("{owner}/{repo}"),
        file,
        quant: None,
        revision,
    })
}

/// Whether a text can be the name of an owner or a repository, and so a folder.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 96
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Whether a path stays where it is put: it comes from a server or from an address.
pub(super) fn is_path(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 240
            && part != "."
            && part != ".."
            && !part.contains(['\\', ':'])
            && !part.chars().any(char::is_control)
    };
    text.len() <= 1024 && text.split('/').all(plain)
}

/// Whether two addresses have scheme, host and port in common.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Source, PullError> {
        Source::parse(text, &Url::parse("https://hub.example").unwrap())
    }

    fn hub(file: Option<&str>, quant: Option<&str>, revision: Option<&str>) -> Source {
        Source::Hub {
            repo: "o/r".into(),
            file: file.map(str::to_owned),
            quant: quant.map(str::to_owned),
            revision: revision.map(str::to_owned),
        }
    }

    #[test]
    fn repositories_are_read_in_all_their_spellings() {
        assert_eq!(parse("hf:o/r/a/b.gguf"), Ok(hub(Some("a/b.gguf"), None, None)));
        assert_eq!(parse("hf:o/r"), Ok(hub(None, None, None)));
        assert_eq!(parse("hf.co/o/r:Q4_K_M"), Ok(hub(None, Some("Q4_K_M"), None)));
        assert_eq!(parse("hf://o/r/"), Ok(hub(None, None, None)));
        for host in ["hub.example", "huggingface.co"] {
            assert_eq!(
                parse(&format!("https://{host}/o/r/blob/v1/x/b.gguf?download=true")),
                Ok(hub(Some("x/b.gguf"), None, Some("v1")))
            );
        }
        assert_eq!(
            parse("https://hub.example/o/r/tree/main"),
            Ok(hub(None, None, Some("main")))
        );
        assert!(matches!(parse("https://other.example/o/r/x.gguf"), Ok(Source::Url(_))));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in [
            "hf:o",
            "hf:o/",
            "hf:../r/x",
            "hf:o/r/../x.gguf",
            "hf:o/r//x.gguf",
            "hf:o/r:",
            "hf:o/r:Q4/x.gguf",
            "hf:o/r/a\\b",
            "model.gguf",
            "ftp://x/y",
            "https://user:secret@example.org/x.gguf",
            "",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.usage, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
