//! What a repository of the hub holds.

use std::time::Duration;

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Response, StatusCode, Url};
use serde::{Deserialize, Serialize};

use super::client::{Answer, Client, Failure, retry_after, sha256};
use super::error::PullError;
use super::source::is_path;

/// Pages of a list, and bytes of one: repositories of models have a few hundred files.
const MAX_PAGES: usize = 50;
const MAX_PAGE: usize = 16 << 20;
/// How often the list is asked for, and the pause after the first time; it doubles with each further one.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteFile {
    /// Below the root of the repository.
    pub path: String,
    pub bytes: u64,
    /// In hexadecimal digits; small files have none.
    pub sha256: Option<String>,
}

/// A repository at a revision.
#[derive(Debug, Clone)]
pub struct Hub {
    pub client: Client,
    pub endpoint: Url,
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Hub {
    /// The address of a file.
    ///
    /// # Errors
    /// When the endpoint is no base of addresses.
    pub fn file(&self, path: &str) -> Result<Url, PullError> {
        self.address(&["resolve", &self.revision], path.split('/'), false)
    }

    /// All files.
    ///
    /// # Errors
    /// When the hub cannot be reached, or says no.
    pub async fn files(&self) -> Result<Vec<RemoteFile>, PullError> {
        let mut url = self.address(&["tree", &self.revision], std::iter::empty(), true)?;
        url.query_pairs_mut().append_pair("recursive", "true");
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.page(&url).await?;
            if !response.status().is_success() {
                return Err(refused(
                    &response,
                    &self.repo,
                    &self.revision,
                    None,
                    self.client.has_token(),
                ));
            }
            let next = next_page(response.headers(), &url);
            let page = read(response).await?;
            let entries: Vec<Entry> = serde_json::from_slice(&page).map_err(|error| {
                PullError::new(format!("the hub's list of {} is not understood: {error}", self.repo))
            })?;
            let entries = entries
                .into_iter()
                .filter(|entry| entry.kind == "file" && is_path(&entry.path));
            files.extend(entries.map(|entry| RemoteFile {
                bytes: entry.lfs.as_ref().map_or(entry.size, |lfs| lfs.size),
                sha256: entry.lfs.and_then(|lfs| sha256(&lfs.oid)),
                path: entry.path,
            }));
            match next {
                Some(next) => url = next,
                None => return Ok(files),
            }
        }
        Err(PullError::new(format!(
            "{} has more files than hearth reads",
            self.repo
        )))
    }

    /// One page of the list. A hub that is busy or cannot be reached is asked again.
    async fn page(&self, url: &Url) -> Result<Response, PullError> {
        let (mut pause, mut attempts) = (PAUSE, 1);
        loop {
            let (why, after) = match self.client.get(url, &HeaderMap::new()).await {
                Ok(Answer { response, .. }) if response.status().is_server_error() || response.status() == 429 => (
                    format!("the hub answered with status {}", response.status()),
                    retry_after(&response),
                ),
                Ok(Answer { response, .. }) => return Ok(response),
                Err(Failure::Passing { why, after }) => (why, after),
                Err(Failure::Final(error)) => return Err(error),
            };
            if attempts == ATTEMPTS {
                return Err(PullError::new(why));
            }
            let wait = after.unwrap_or(pause);
            tracing::warn!("{why}; trying again in {:.1} s", wait.as_secs_f64());
            tokio::time::sleep(wait).await;
            pause *= 2;
            attempts += 1;
        }
    }

    /// `ENDPOINT[/api/models]/owner/name/...`.
    fn address<'p>(&self, middle: &[&str], path: impl Iterator<Item = &'p str>, api: bool) -> Result<Url, PullError> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| PullError::usage(format!("HF_ENDPOINT: {} is no address of a hub", self.endpoint)))?
            .pop_if_empty()
            .extend(if api { &["api", "models"][..] } else { &[] })
            .extend(self.repo.split('/'))
            .extend(middle)
            .extend(path);
        Ok(url)
    }
}

/// What a refusal of the hub means.
pub(super) fn refused(
    response: &Response,
    repo: &str,
    revision: &str,
    file: Option<&str>,
    has_token: bool,
) -> PullError {
    let status = response.status();
    let code = response
        .headers()
        .get("x-error-code")
        .and_then(|code| code.to_str().ok());
    let what = file.map_or_else(|| repo.to_owned(), |file| format!("{file} of {repo}"));
    match (status, code) {
        (StatusCode::NOT_FOUND, Some("RevisionNotFound")) => {
            PullError::new(format!("{repo} has no revision `{revision}`"))
        }
        (StatusCode::NOT_FOUND, Some("EntryNotFound")) => PullError::new(format!("there is no {what}")),
        (StatusCode::NOT_FOUND, _) => PullError::new(format!("the hub has no {what} (status 404)"))
            .hint("check the spelling; private repositories need a token in HF_TOKEN"),
        (StatusCode::UNAUTHORIZED, _) if has_token => {
            PullError::new(format!("the hub does not accept the token for {what} (status 401)"))
                .hint("the token may have expired, or the repository may not exist")
        }
        (StatusCode::UNAUTHORIZED, _) => {
            PullError::new(format!("{what} needs a token, or does not exist (status 401)"))
                .hint("put a token from https://huggingface.co/settings/tokens into the variable HF_TOKEN")
        }
        (StatusCode::FORBIDDEN, _) => PullError::new(format!("the hub does not let you have {what} (status 403)"))
            .hint(format!(
                "accept the model's conditions on its page, https://huggingface.co/{repo}"
            )),
        (status, _) => PullError::new(format!("the hub answered with status {status} for {what}")),
    }
}

/// The address of the next page in `Link: <...>; rel="next"`. Mirrors pass on links to the hub itself; the page is theirs all the
/// same.
fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once('<')?;
    let (address, _) = rest.split_once('>')?;
    let next = url.join(address).ok()?;
    let mut here = url.clone();
    here.set_path(next.path());
    here.set_query(next.query());
    Some(here)
}

async fn read(mut response: Response) -> Result<Vec<u8>, PullError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let chunk =
            chunk.map_err(|error| PullError::new(format!("the list ends early: {}", super::client::cause(&error))))?;
        let Some(chunk) = chunk else { return Ok(body) };
        body.extend_from_slice(&chunk);
        if body.len() > MAX_PAGE {
            return Err(PullError::new("the hub's list is longer than hearth reads"));
        }
    }
}
