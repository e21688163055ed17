//! One file, from its first byte to its name.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};
use serde::Serialize;

use super::client::{Answer, Client, Failure, cause, host, retry_after, sha256};
use super::error::PullError;
use super::listing::refused;
use super::part::Part;
use crate::gguf::Gguf;
use crate::host::free_bytes;
use crate::memory::bytes;

/// The pause after a first failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Bytes that stay free on the disk.
const SPARE: u64 = 64 << 20;

/// A file to fetch.
#[derive(Debug, Clone)]
pub struct Download<'d> {
    pub url: Url,
    /// Repository and revision, for messages about the hub; `None` for other servers.
    pub repository: Option<(&'d str, &'d str)>,
    /// Where it goes.
    pub to: &'d Path,
    /// How long it is, if that is known.
    pub bytes: Option<u64>,
    /// What it must be, in hexadecimal digits, if that is known.
    pub sha256: Option<&'d str>,
    /// Failures in a row, without a byte between them, after which to give up.
    pub retries: u32,
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fetched {
    pub bytes: u64,
    pub sha256: String,
    /// The hash is the one that was asked for or that the hub told.
    pub verified: bool,
    /// Bytes that were there of an earlier attempt.
    pub resumed: u64,
}

/// What is told of a download.
pub trait Progress {
    /// So many bytes are there, of so many if that is known.
    fn at(&mut self, bytes: u64, of: Option<u64>);
    /// Something that a user may want to know, such as a failure after which it is tried again.
    fn note(&mut self, text: &str);
}

impl Download<'_> {
    /// Fetches the file. A file that is at its place is replaced; its folder must be there.
    ///
    /// # Errors
    /// When it is not there, is not what it should be, does not fit onto the disk, or does not come after several attempts. What
    /// came is kept for the next time, unless it is wrong.
    pub async fn run(mut self, client: &Client, progress: &mut dyn Progress) -> Result<Fetched, PullError> {
        let expected = self.sha256.map(str::to_owned);
        let of = match &expected {
            Some(sum) => format!("sha256:{sum}"),
            // Signatures change with each link to the same file, and are nobody's business.
            None => {
                let mut url = self.url.clone();
                url.set_query(None);
                url.to_string()
            }
        };
        let total = self.bytes;
        let mut part = Part::open(self.to, of, &mut |at| progress.at(at, total))?;
        if self.bytes.is_some_and(|bytes| part.length() > bytes) {
            part.restart(None)?;
        }
        // Nothing tells two versions of a file apart that has neither.
        if expected.is_none() && part.strong_etag().is_none() && part.length() > 0 {
            part.restart(None)?;
        }
        let mut resumed = part.length();
        let mut state = State {
            bytes: self.bytes.take(),
            sha256: expected,
        };
        loop {
            self.fetch(client, &mut part, &mut state, progress).await?;
            let sum = part.sha256();
            match &state.sha256 {
                Some(expected) if *expected != sum && resumed > 0 => {
                    // The bytes of the earlier attempt may be the wrong ones.
                    progress.note("the file is not what it should be; fetching it again from its beginning");
                    part.restart(None)?;
                    resumed = 0;
                }
                Some(expected) if *expected != sum => {
                    let what = format!(
                        "{} has the SHA-256 {sum}, but should have {expected}; it was removed",
                        self.name()
                    );
                    part.discard();
                    return Err(
                        PullError::new(what).hint("the server may have another version of the file, or it was damaged")
                    );
                }
                _ => break,
            }
        }
        let fetched = Fetched {
            bytes: part.length(),
            sha256: part.sha256(),
            verified: state.sha256.is_some(),
            resumed,
        };
        // What a hash vouches for is kept, whatever it is; a part of a split model cannot be read alone.
        let whole = is_gguf(self.to) && !self.name().contains("-of-");
        if !fetched.verified
            && whole
            && let Err(error) = Gguf::open(part.path())
        {
            part.discard();
            return Err(PullError::new(format!(
                "what came is not usable: {error}; it was removed"
            )));
        }
        part.finish(self.to)?;
        Ok(fetched)
    }

    fn name(&self) -> String {
        self.to.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Asks until all bytes are there.
    async fn fetch(
        &self,
        client: &Client,
        part: &mut Part,
        state: &mut State,
        progress: &mut dyn Progress,
    ) -> Result<(), PullError> {
        let mut failures = 0;
        loop {
            if state.bytes == Some(part.length()) && part.length() > 0 {
                return Ok(());
            }
            let before = part.length();
            let (why, after) = match self.attempt(client, part, state, progress).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { why, after }) => (why, after),
            };
            if part.length() > before {
                failures = 0;
            }
            failures += 1;
            if failures > self.retries {
                return Err(
                    PullError::new(format!("{}: {why}", self.name())).hint(match part.length() {
                        0 => "try again later".to_owned(),
                        length => format!("{} are kept; the same command goes on from there", bytes(length)),
                    }),
                );
            }
            let pause = PAUSE.saturating_mul(1 << (failures - 1).min(10)).min(MAX_PAUSE);
            // Many clients that were cut off at once need not come back at once.
            let pause = pause.mul_f64(0.5 + 0.5 * fastrand::f64());
            let pause = after.unwrap_or(pause);
            progress.note(&format!("{why}; trying again in {:.1} s", pause.as_secs_f64()));
            tokio::time::sleep(pause).await;
        }
    }

    /// One request.
    async fn attempt(
        &self,
        client: &Client,
        part: &mut Part,
        state: &mut State,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if part.length() > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", part.length()));
            headers.extend(range.ok().map(|range| (RANGE, range)));
            let etag = part.strong_etag().and_then(|etag| HeaderValue::from_str(etag).ok());
            headers.extend(etag.map(|etag| (IF_RANGE, etag)));
        }
        let Answer { mut response, sha256 } = client.get(&self.url, &headers).await?;
        state.learn(sha256, &self.name())?;
        let total = match response.status() {
            StatusCode::OK => {
                let total = length(&response);
                part.restart(etag(&response)).map_err(Failure::Final)?;
                total
            }
            StatusCode::PARTIAL_CONTENT => match range(&response) {
                Some((start, total)) if start == part.length() => total,
                _ => {
                    part.restart(None).map_err(Failure::Final)?;
                    return Err(Failure::passing("the server sent other bytes than asked for"));
                }
            },
            StatusCode::RANGE_NOT_SATISFIABLE if part.length() > 0 => {
                part.restart(None).map_err(Failure::Final)?;
                return Err(Failure::passing("the server has fewer bytes than there are here"));
            }
            status if status.is_server_error() || [408, 425, 429].contains(&status.as_u16()) => {
                return Err(Failure::Passing {
                    why: format!("{} answered with status {status}", host(response.url())),
                    after: retry_after(&response),
                });
            }
            status => {
                return Err(Failure::Final(match self.repository {
                    Some((repo, revision)) => {
                        refused(&response, repo, revision, Some(&self.name()), client.has_token())
                    }
                    None => PullError::new(format!("{} answered with status {status}", host(response.url()))),
                }));
            }
        };
        state.expect(total, &self.name())?;
        self.check_disk(part, state.bytes).map_err(Failure::Final)?;
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| {
                let why = if error.is_timeout() {
                    "no byte came for too long".to_owned()
                } else {
                    cause(&error)
                };
                Failure::passing(format!("the transfer ended early: {why}"))
            })?;
            let Some(chunk) = chunk else { break };
            if part.length() == 0 && is_gguf(self.to) && !chunk.starts_with(&b"GGUF"[..chunk.len().min(4)]) {
                let what = format!("what {} sends is not a GGUF file", host(response.url()));
                return Err(Failure::Final(
                    PullError::new(what).hint("is it the address of a page about the file?"),
                ));
            }
            if state
                .bytes
                .is_some_and(|bytes| part.length() + chunk.len() as u64 > bytes)
            {
                part.restart(None).map_err(Failure::Final)?;
                return Err(Failure::passing("the server sent more bytes than it said"));
            }
            part.write(&chunk).map_err(Failure::Final)?;
            progress.at(part.length(), state.bytes);
        }
        match state.bytes {
            Some(bytes) if part.length() < bytes => Err(Failure::passing(format!(
                "the transfer ended early, after {} of {bytes} bytes",
                part.length()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether what is still to come fits onto the disk.
    fn check_disk(&self, part: &Part, total: Option<u64>) -> Result<(), PullError> {
        let (Some(total), Some(free)) = (total, free_bytes(self.to)) else {
            return Ok(());
        };
        let needed = total.saturating_sub(part.length());
        if needed.saturating_add(SPARE) <= free {
            return Ok(());
        }
        Err(PullError::new(format!(
            "{} needs {} more, but the disk has {} free",
            self.name(),
            bytes(needed),
            bytes(free)
        ))
        .hint("--to puts it elsewhere"))
    }
}

/// What is known of a file so far.
struct State {
    bytes: Option<u64>,
    sha256: Option<String>,
}

impl State {
    fn learn(&mut self, sum: Option<String>, name: &str) -> Result<(), Failure> {
        let Some(sum) = sum else { return Ok(()) };
        match &self.sha256 {
            Some(known) if *known != sum => Err(Failure::Final(
                PullError::new(format!("{name} is another file now: its SHA-256 is {sum}, not {known}"))
                    .hint("the repository changes at the moment; try again"),
            )),
            _ => {
                self.sha256 = Some(sum);
                Ok(())
            }
        }
    }

    fn expect(&mut self, total: Option<u64>, name: &str) -> Result<(), Failure> {
        match (self.bytes, total) {
            (Some(known), Some(total)) if known != total => Err(Failure::Final(PullError::new(format!(
                "{name} should have {known} bytes, but the server says {total}"
            )))),
            (known, total) => {
                self.bytes = known.or(total);
                Ok(())
            }
        }
    }
}

/// Whether a name says that a file is a GGUF file.
fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn etag(response: &Response) -> Option<String> {
    Some(response.headers().get(ETAG)?.to_str().ok()?.to_owned())
}

fn length(response: &Response) -> Option<u64> {
    response.content_length()
}

/// First byte and total length of `Content-Range: bytes 5-9/10`.
fn range(response: &Response) -> Option<(u64, Option<u64>)> {
    parse_range(response.headers().get(CONTENT_RANGE)?.to_str().ok()?)
}

fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, total))
}

/// Reads a SHA-256 that a user gives.
///
/// # Errors
/// When it is none.
pub fn parse_sha256(text: &str) -> Result<String, String> {
    sha256(text).ok_or_else(|| "a SHA-256 has 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for wrong in ["5-9/10", "bytes */10", "bytes x-9/10", "bytes 5-9/x", ""] {
            assert_eq!(parse_range(wrong), None);
        }
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let mut state = State {
            bytes: None,
            sha256: None,
        };
        assert!(state.expect(Some(5), "f").is_ok() && state.expect(None, "f").is_ok());
        assert!(state.expect(Some(6), "f").is_err());
        assert!(state.learn(Some("a".into()), "f").is_ok() && state.learn(None, "f").is_ok());
        assert!(state.learn(Some("b".into()), "f").is_err());
    }
}
