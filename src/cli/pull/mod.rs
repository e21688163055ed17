//! `hearth pull`: fetches models from the Hugging Face Hub, a mirror of it, or any web server.

mod choose;
mod shown;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Url;
use serde::Serialize;

use super::output::{self, Usage};
use crate::folders;
use crate::gguf::Gguf;
use crate::host::free_bytes;
use crate::hub::{self, Client, Download, Fetched, Hub, PullError, Source, Token};
use choose::{choose, list};
use shown::Shown;

const ENDPOINT: &str = "https://huggingface.co";

/// Arguments of `hearth pull`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// hf:OWNER/REPO/FILE, hf:OWNER/REPO (with --quant), hf:OWNER/REPO:QUANT, or an address. Of a split model, any part.
    source: String,

    /// Which quantization of the repository, such as Q4_K_M.
    #[arg(long, short, value_name = "NAME")]
    quant: Option<String>,

    /// List the models of the repository, and fetch nothing.
    #[arg(long)]
    list: bool,

    /// Branch, tag or commit of the repository [default: main].
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,

    /// Folder to write to, or name of the file (ending in .gguf) [default: OWNER/REPO in hearth's folder for models, see
    /// HEARTH_MODELS].
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,

    /// What the file must be; for other servers than the hub, which tells it itself.
    #[arg(long, value_name = "HEX", value_parser = hub::parse_sha256)]
    sha256: Option<String>,

    /// Variable with the token of the hub.
    #[arg(long, value_name = "NAME", default_value = "HF_TOKEN")]
    token_env: String,

    /// Failures in a row after which to give up.
    #[arg(long, value_name = "N", default_value_t = 8)]
    retries: u32,

    /// Seconds without a byte after which a transfer counts as failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Replace files that are there and differ.
    #[arg(long)]
    force: bool,

    /// Read files that are there again and compare their SHA-256, not only their size.
    #[arg(long)]
    verify: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Pulled {
    source: String,
    /// The file to serve: of a split model, its first part.
    path: PathBuf,
    bytes: u64,
    files: Vec<PulledFile>,
    /// Lines for models.toml.
    config: String,
}

#[derive(Debug, Serialize)]
struct PulledFile {
    path: PathBuf,
    /// It was there already.
    present: bool,
    #[serde(flatten)]
    fetched: Fetched,
}

/// One file to fetch, and where it goes.
struct Job {
    url: Url,
    to: PathBuf,
    bytes: Option<u64>,
    sha256: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    // Addresses and names are few: one thread is enough for the network, and writes may block it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(pull(args))
        .map_err(|error| match error.downcast::<PullError>() {
            Ok(error) if error.usage => Usage(error.to_string()).into(),
            Ok(error) => error.into(),
            Err(error) => error,
        })
}

async fn pull(args: Args) -> anyhow::Result<()> {
    let endpoint = endpoint()?;
    let source = Source::parse(&args.source, &endpoint)?;
    let token = std::env::var(&args.token_env)
        .ok()
        .filter(|token| !token.trim().is_empty());
    let token = token.map(Token::new);
    let stall = Duration::from_secs(args.timeout);
    let (client, repository, jobs) = match source {
        Source::Url(url) => {
            for (given, flag) in [
                (args.quant.is_some(), "--quant"),
                (args.list, "--list"),
                (args.revision.is_some(), "--revision"),
            ] {
                if given {
                    return Err(Usage(format!("{flag} is for repositories of the hub, not for an address")).into());
                }
            }
            let name = file_name(&url)?;
            let job = Job {
                to: place(args.to.as_deref(), &folders::models(), &name, 1)?,
                url,
                bytes: None,
                sha256: args.sha256.clone(),
            };
            // Nobody but the hub is told its token.
            (Client::new(&endpoint, None, stall)?, None, vec![job])
        }
        Source::Hub {
            repo,
            file,
            quant,
            revision,
        } => {
            let revision = args.revision.clone().or(revision);
            let hub = Hub {
                client: Client::new(&endpoint, token.as_ref(), stall)?,
                endpoint,
                repo,
                revision: revision.unwrap_or_else(|| "main".to_owned()),
            };
            let files = hub.files().await?;
            let groups = hub::groups(&files);
            if args.list {
                return list(&groups, args.json);
            }
            let quant = args.quant.as_deref().or(quant.as_deref());
            let files = choose(&hub.repo, &files, &groups, file.as_deref(), quant)?;
            if args.sha256.is_some() && files.len() > 1 {
                return Err(Usage("--sha256 is for a single file; the hub tells those of split models".into()).into());
            }
            let folder = folders::models().join(&hub.repo);
            let jobs = files.iter().map(|file| {
                let name = file.path.rsplit('/').next().unwrap_or(&file.path);
                Ok(Job {
                    url: hub.file(&file.path)?,
                    to: place(args.to.as_deref(), &folder, name, files.len())?,
                    bytes: Some(file.bytes),
                    sha256: args.sha256.clone().or_else(|| file.sha256.clone()),
                })
            });
            let jobs = jobs.collect::<anyhow::Result<Vec<_>>>()?;
            (hub.client, Some((hub.repo, hub.revision)), jobs)
        }
    };
    let repository = repository
        .as_ref()
        .map(|(repo, revision)| (repo.as_str(), revision.as_str()));
    let files = fetch_all(&args, &client, repository, &jobs).await?;
    finish(&args, files)
}

/// Fetches what is not there yet.
async fn fetch_all(
    args: &Args,
    client: &Client,
    repository: Option<(&str, &str)>,
    jobs: &[Job],
) -> anyhow::Result<Vec<PulledFile>> {
    check_disk(jobs)?;
    let mut files = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let mut shown = Shown::new(&job.to, index, jobs.len());
        if let Some(fetched) = present(job, args, &mut shown)? {
            files.push(PulledFile {
                path: job.to.clone(),
                present: true,
                fetched,
            });
            continue;
        }
        if let Some(folder) = job.to.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let download = Download {
            url: job.url.clone(),
            repository,
            to: &job.to,
            bytes: job.bytes,
            sha256: job.sha256.as_deref(),
            retries: args.retries,
        };
        let fetched = download.run(client, &mut shown).await?;
        shown.done(&fetched);
        files.push(PulledFile {
            path: job.to.clone(),
            present: false,
            fetched,
        });
    }
    Ok(files)
}

/// Reads what came with hearth's own reader and tells how to serve it.
fn finish(args: &Args, files: Vec<PulledFile>) -> anyhow::Result<()> {
    let path = std::path::absolute(&files[0].path)?;
    let mut config = String::new();
    if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    {
        let readable = Gguf::open(&path).and_then(|gguf| gguf.geometry());
        if let Err(error) = readable {
            bail!("the files came as the server has them, but hearth cannot use them: {error}");
        }
        config = lines(&path);
    }
    let pulled = Pulled {
        source: args.source.clone(),
        bytes: files.iter().map(|file| file.fetched.bytes).sum(),
        path,
        files,
        config,
    };
    if args.json {
        return output::print_json(&pulled);
    }
    if pulled.files.iter().any(|file| !file.present && !file.fetched.verified) {
        eprintln!("note: the server tells no SHA-256, so only the length was checked; --sha256 checks the content");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", pulled.path.display())?;
    if !pulled.config.is_empty() {
        writeln!(out, "\n# for models.toml\n{}", pulled.config)?;
        let words = ["hearth", "serve", "--model-path", &pulled.path.to_string_lossy()].map(str::to_owned);
        eprintln!("or at once: {}", output::command_line(words.into_iter()));
    }
    Ok(())
}

/// A `[[model]]` table for a file.
fn lines(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    // Parts of a split model are one model.
    let name = match name.rsplit_once("-00001-of-") {
        Some((stem, _)) => stem.to_owned(),
        None => name,
    };
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    format!(
        "[[model]]\nname = {}\npath = {}",
        text(&name),
        text(&path.to_string_lossy())
    )
}

/// A file that is at its place already, if it is the one that is wanted.
fn present(job: &Job, args: &Args, shown: &mut Shown) -> anyhow::Result<Option<Fetched>> {
    let Ok(found) = fs::metadata(&job.to) else {
        return Ok(None);
    };
    if found.is_dir() {
        bail!("{} is a folder", job.to.display());
    }
    let known = job.bytes.is_some() || job.sha256.is_some();
    let mut same = known && job.bytes.is_none_or(|bytes| bytes == found.len());
    let mut sha256 = String::new();
    let compare = args.verify || job.bytes.is_none();
    if let (true, true, Some(expected)) = (same, compare, &job.sha256) {
        sha256 = hash(&job.to, shown).with_context(|| format!("cannot read {}", job.to.display()))?;
        same = sha256 == *expected;
    }
    if same {
        let how = if sha256.is_empty() {
            "with the right size"
        } else {
            "with the right SHA-256"
        };
        eprintln!("{} is there already, {how}", job.to.display());
        return Ok(Some(Fetched {
            bytes: found.len(),
            verified: !sha256.is_empty(),
            sha256,
            resumed: 0,
        }));
    }
    if args.force {
        return Ok(None);
    }
    let how = if known {
        "but is another file"
    } else {
        "and nothing tells whether it is the same"
    };
    bail!("{} is there already, {how}; --force replaces it", job.to.display());
}

fn hash(path: &Path, shown: &mut Shown) -> std::io::Result<String> {
    use std::io::Read;

    use hub::Progress;
    use sha2::{Digest, Sha256};

    let mut file = fs::File::open(path)?;
    let total = file.metadata()?.len();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            shown.clear();
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..count]);
        read += count as u64;
        shown.at(read, Some(total));
    }
}

/// Whether all files together fit, before the first one is begun.
fn check_disk(jobs: &[Job]) -> anyhow::Result<()> {
    let missing = jobs.iter().filter(|job| !job.to.exists());
    let needed = missing.map(|job| {
        let name = job.to.file_name().unwrap_or_default().to_string_lossy();
        let part = fs::metadata(job.to.with_file_name(format!(".{name}.part")));
        job.bytes.unwrap_or(0).saturating_sub(part.map_or(0, |part| part.len()))
    });
    let needed: u64 = needed.sum();
    match free_bytes(&jobs[0].to) {
        Some(free) if free < needed => bail!(
            "{} are needed in {}, but its disk has {} free\n  hint: --to puts the files elsewhere",
            output::bytes(needed),
            jobs[0].to.parent().unwrap_or(Path::new(".")).display(),
            output::bytes(free)
        ),
        _ => Ok(()),
    }
}

/// Where a file goes: `to` is a folder, or the name of a single file.
fn place(to: Option<&Path>, folder: &Path, name: &str, files: usize) -> anyhow::Result<PathBuf> {
    let Some(to) = to else { return Ok(folder.join(name)) };
    let is_file = !to.is_dir()
        && to
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if is_file && files > 1 {
        return Err(Usage(format!("the model has {files} files: --to must be a folder")).into());
    }
    Ok(if is_file { to.to_owned() } else { to.join(name) })
}

/// The last part of an address.
fn file_name(url: &Url) -> anyhow::Result<String> {
    let last = url
        .path_segments()
        .and_then(|mut parts| parts.next_back())
        .unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if last.is_empty() || last.starts_with('.') || last.len() > 240 || !last.chars().all(plain) {
        return Err(Usage(format!("{url} does not end in the name of a file")).into());
    }
    Ok(last.to_owned())
}

/// `HF_ENDPOINT`, as the hub's own tools read it.
fn endpoint() -> anyhow::Result<Url> {
    let text = std::env::var("HF_ENDPOINT").ok().filter(|text| !text.is_empty());
    let text = text.as_deref().unwrap_or(ENDPOINT);
    match Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(url),
        _ => Err(Usage(format!("HF_ENDPOINT: {text:?} is no address")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_valid_toml() {
        let lines = lines(Path::new("/models/My \"Model\"-Q4_K_M-00001-of-00003.gguf"));
        let table: toml::Table = toml::from_str(&lines).unwrap();
        assert_eq!(table["model"][0]["name"].as_str(), Some("my \"model\"-q4_k_m"));
    }

    #[test]
    fn names_come_from_addresses_only_if_they_are_plain() {
        let name = |url: &str| file_name(&Url::parse(url).unwrap()).ok();
        assert_eq!(name("https://x.y/a/b.gguf?c=d").as_deref(), Some("b.gguf"));
        for url in [
            "https://x.y/",
            "https://x.y/a/",
            "https://x.y/.hidden",
            "https://x.y/%2e%2e%2fb",
        ] {
            assert_eq!(name(url), None, "{url}");
        }
    }

    #[test]
    fn a_folder_takes_many_files_and_a_name_one() {
        let folder = tempfile::tempdir().unwrap();
        let place = |to: &str, files| place(Some(&folder.path().join(to)), Path::new("models"), "m.gguf", files);
        assert!(place("new", 3).unwrap().ends_with("new/m.gguf"));
        assert!(place("other.gguf", 1).unwrap().ends_with("other.gguf"));
        assert!(place("other.gguf", 2).is_err());
    }
}
