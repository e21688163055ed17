//! `hearth pull` from a hub on loopback that cuts connections, sends other bytes, and says no.

#[path = "common/command.rs"]
mod command;
#[path = "common/hub.rs"]
mod hub;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use hearth::gguf::{Gguf, GgufWriter};
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use hub::{Behaviour, LoopbackHub, sha256};
use serde_json::Value;

/// A small real file.
fn model() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let shape = Shape::preset(Arch::Llama, "tiny").unwrap();
    let synthetic = Synthetic::new(shape, Mix::from_name("q4_k_m").unwrap());
    synthetic.write(&file, |_, _| ()).unwrap();
    std::fs::read(file).unwrap()
}

/// One model in two files.
fn split_model() -> [Vec<u8>; 2] {
    [0_u16, 1].map(|number| {
        let mut writer = GgufWriter::new();
        writer.u16("split.no", number).u16("split.count", 2);
        if number == 0 {
            writer
                .str("general.architecture", "llama")
                .u32("llama.block_count", 1)
                .u32("llama.context_length", 64)
                .u32("llama.embedding_length", 32)
                .u32("llama.feed_forward_length", 32)
                .u32("llama.attention.head_count", 1)
                .str("tokenizer.ggml.model", "gpt2")
                .strings("tokenizer.ggml.tokens", &["a", "b"]);
        }
        let kind = hearth::gguf::TensorType::from_name("F32").unwrap();
        writer.tensor(&format!("blk.{number}.x.weight"), kind, &[32, 64]);
        writer.zeros()
    })
}

fn files(files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> BTreeMap<String, Vec<u8>> {
    files
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect()
}

fn one() -> Behaviour {
    Behaviour {
        files: files([("model-Q4_K_M.gguf", model())]),
        ..Behaviour::default()
    }
}

fn pull(hub: &LoopbackHub, folder: &Path, args: &[&str]) -> Output {
    command::hearth(&["pull"])
        .args(args)
        .env("HF_ENDPOINT", format!("http://{}", hub.address))
        .env("HEARTH_MODELS", folder)
        .env_remove("HF_TOKEN")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What lies in a folder, hidden files included.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

const FILE: &str = "hf:owner/repo/model-Q4_K_M.gguf";

#[test]
fn a_model_is_fetched_verified_and_ready_to_serve() {
    let hub = LoopbackHub::start(one());
    let folder = tempfile::tempdir().unwrap();
    let pulled = pull(&hub, folder.path(), &[FILE]);
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let path = folder.path().join("owner/repo/model-Q4_K_M.gguf");
    assert_eq!(
        std::fs::read(&path).unwrap(),
        hub.behaviour.lock().unwrap().files["model-Q4_K_M.gguf"]
    );
    assert_eq!(names(path.parent().unwrap()), ["model-Q4_K_M.gguf"]);
    assert!(stderr(&pulled).contains("SHA-256 is right"), "{}", stderr(&pulled));
    // The lines are a configuration.
    let text = String::from_utf8(pulled.stdout).unwrap();
    let config = folder.path().join("models.toml");
    std::fs::write(
        &config,
        text.split_once("[[model]]")
            .map(|(_, rest)| format!("[[model]]{rest}"))
            .unwrap(),
    )
    .unwrap();
    let checked = command::hearth(&["config", "check", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    // A second time nothing is fetched.
    let before = hub.asked_for_files().len();
    for (args, how) in [(&[FILE][..], "right size"), (&[FILE, "--verify"], "right SHA-256")] {
        let again = pull(&hub, folder.path(), args);
        assert!(
            again.status.success() && stderr(&again).contains(how),
            "{}",
            stderr(&again)
        );
    }
    assert_eq!(hub.asked_for_files().len(), before);
    // Another file in its place is not replaced unless that is asked for.
    std::fs::write(&path, b"other").unwrap();
    let refused = pull(&hub, folder.path(), &[FILE]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--force replaces it"));
    assert!(pull(&hub, folder.path(), &[FILE, "--force"]).status.success());
    assert!(Gguf::open(&path).is_ok());
}

#[test]
fn cut_connections_and_busy_servers_are_overcome() {
    let hub = LoopbackHub::start(Behaviour {
        cuts: vec![1000, 0, 70_000],
        statuses: vec![503, 429],
        busy: 1,
        ..one()
    });
    let folder = tempfile::tempdir().unwrap();
    let pulled = pull(&hub, folder.path(), &[FILE, "--json"]);
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let report: Value = serde_json::from_slice(&pulled.stdout).unwrap();
    assert_eq!(report["files"][0]["verified"], true);
    let told = stderr(&pulled);
    assert!(
        told.contains("status 503") && told.contains("trying again in"),
        "{told}"
    );
    let ranges: Vec<Option<String>> = hub
        .asked_for_files()
        .into_iter()
        .map(|(_, asked)| asked.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges[2], None);
    assert_eq!(ranges[3].as_deref(), Some("bytes=1000-"));
    assert_eq!(ranges[5].as_deref(), Some("bytes=71000-"));
}

#[test]
fn a_later_run_goes_on_where_the_first_one_ended() {
    let hub = LoopbackHub::start(Behaviour {
        cuts: vec![5000],
        ..one()
    });
    let folder = tempfile::tempdir().unwrap();
    let failed = pull(&hub, folder.path(), &[FILE, "--retries", "0"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stderr(&failed).contains("are kept; the same command goes on"),
        "{}",
        stderr(&failed)
    );
    let parent = folder.path().join("owner/repo");
    assert_eq!(
        names(&parent),
        [".model-Q4_K_M.gguf.part", ".model-Q4_K_M.gguf.part.json"]
    );
    let pulled = pull(&hub, folder.path(), &[FILE, "--json"]);
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let report: Value = serde_json::from_slice(&pulled.stdout).unwrap();
    assert_eq!(report["files"][0]["resumed"], 5000);
    let (_, last) = hub.asked_for_files().pop().unwrap();
    assert_eq!(last.headers["range"], "bytes=5000-");
    assert!(last.headers.contains_key("if-range"));
    assert_eq!(names(&parent), ["model-Q4_K_M.gguf"]);
}

#[test]
fn what_a_cut_off_run_left_is_of_no_use_for_another_file() {
    let hub = LoopbackHub::start(Behaviour {
        cuts: vec![5000],
        ..one()
    });
    let folder = tempfile::tempdir().unwrap();
    let _ = pull(&hub, folder.path(), &[FILE, "--retries", "0"]);
    // The repository has another version now.
    hub.set(|hub| {
        let mut other = model();
        let last = other.len() - 1;
        other[last] ^= 1;
        hub.files.insert("model-Q4_K_M.gguf".into(), other);
    });
    let pulled = pull(&hub, folder.path(), &[FILE]);
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let (_, last) = hub.asked_for_files().pop().unwrap();
    assert!(!last.headers.contains_key("range"), "{last:?}");
    // Part files that somebody damaged are noticed by the hash, and fetched again.
    std::fs::remove_file(folder.path().join("owner/repo/model-Q4_K_M.gguf")).unwrap();
    hub.set(|hub| hub.cuts = vec![5000]);
    let _ = pull(&hub, folder.path(), &[FILE, "--retries", "0"]);
    let part = folder.path().join("owner/repo/.model-Q4_K_M.gguf.part");
    let mut damaged = std::fs::read(&part).unwrap();
    damaged[4000] ^= 1;
    std::fs::write(&part, damaged).unwrap();
    let pulled = pull(&hub, folder.path(), &[FILE]);
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    assert!(stderr(&pulled).contains("fetching it again"), "{}", stderr(&pulled));
}

#[test]
fn wrong_bytes_never_get_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("owner/repo");
    let hub = LoopbackHub::start(Behaviour {
        wrong_sum: true,
        ..one()
    });
    let failed = pull(&hub, folder.path(), &[FILE]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("has the SHA-256"), "{}", stderr(&failed));
    assert!(names(&parent).is_empty(), "{:?}", names(&parent));
    // A server that answers ranges with other bytes, and one that knows no ranges.
    for wrong_range in [true, false] {
        let hub = LoopbackHub::start(Behaviour {
            wrong_range,
            no_range: !wrong_range,
            cuts: vec![9000],
            ..one()
        });
        let pulled = pull(&hub, folder.path(), &[FILE]);
        assert!(pulled.status.success(), "{}", stderr(&pulled));
        assert!(hub.asked_for_files().len() > 1);
        assert_eq!(names(&parent), ["model-Q4_K_M.gguf"]);
        std::fs::remove_file(parent.join("model-Q4_K_M.gguf")).unwrap();
    }
    // A page instead of a model ends at its first bytes.
    let hub = LoopbackHub::start(Behaviour {
        files: files([("page.gguf", b"<!DOCTYPE html>".to_vec())]),
        ..Behaviour::default()
    });
    let url = format!("http://{}/files/page.gguf", hub.cdn);
    let failed = pull(&hub, folder.path(), &[&url]);
    assert!(stderr(&failed).contains("is not a GGUF file"), "{}", stderr(&failed));
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let hub = LoopbackHub::start(Behaviour {
        stall: Some(20_000),
        ..one()
    });
    let folder = tempfile::tempdir().unwrap();
    let args = [FILE, "--timeout", "1", "--retries", "0"];
    let failed = pull(&hub, folder.path(), &args);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        stderr(&failed).contains("no byte came for too long"),
        "{}",
        stderr(&failed)
    );
    hub.set(|hub| hub.stall = None);
    assert!(pull(&hub, folder.path(), &args).status.success());
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let hub = LoopbackHub::start(Behaviour {
        token: Some("hf_hush".into()),
        cdn: true,
        ..one()
    });
    let folder = tempfile::tempdir().unwrap();
    let refused = pull(&hub, folder.path(), &[FILE]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("HF_TOKEN"), "{}", stderr(&refused));
    let with = |name: &str, args: &[&str]| {
        command::hearth(&["pull", FILE, "--log", "trace"])
            .args(args)
            .env("HF_ENDPOINT", format!("http://{}", hub.address))
            .env("HEARTH_MODELS", folder.path())
            .env(name, "hf_hush")
            .output()
            .unwrap()
    };
    let pulled = with("HF_TOKEN", &[]);
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    let all = stderr(&pulled) + &String::from_utf8_lossy(&pulled.stdout);
    assert!(!all.contains("hush"), "{all}");
    let other = folder.path().join("other.gguf");
    let args = ["--token-env", "MY_TOKEN", "--to", other.to_str().unwrap()];
    assert!(with("MY_TOKEN", &args).status.success() && other.exists());
    let asked = hub.all_asked();
    assert!(asked.iter().any(|(cdn, _)| *cdn));
    for (cdn, asked) in asked.iter().skip(1) {
        assert_eq!(asked.headers.contains_key("authorization"), !cdn, "{asked:?}");
    }
}

#[test]
fn names_that_are_not_there_get_a_hint() {
    let hub = LoopbackHub::start(one());
    let folder = tempfile::tempdir().unwrap();
    for (source, says) in [
        ("hf:owner/repo/model-Q4_K_S.gguf", "did you mean model-Q4_K_M.gguf?"),
        ("hf:owner/nothing", "has no owner/nothing"),
        ("hf:owner/repo:Q4_K_S", "did you mean Q4_K_M?"),
    ] {
        let failed = pull(&hub, folder.path(), &[source]);
        assert_eq!(failed.status.code(), Some(1));
        assert!(stderr(&failed).contains(says), "{}", stderr(&failed));
    }
    let failed = pull(&hub, folder.path(), &["hf:owner/repo", "--revision", "v2"]);
    assert!(stderr(&failed).contains("no revision `v2`"), "{}", stderr(&failed));
    for wrong in ["model.gguf", "hf:owner", "hf:owner/repo/../x.gguf", "ftp://x/y.gguf"] {
        assert_eq!(pull(&hub, folder.path(), &[wrong]).status.code(), Some(2), "{wrong}");
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn models_of_a_repository_are_listed_and_chosen() {
    let [first, second] = split_model();
    let hub = LoopbackHub::start(Behaviour {
        files: files([
            ("README.md", b"# x".to_vec()),
            ("small-Q4_K_M.gguf", model()),
            ("Q8_0/big-Q8_0-00001-of-00002.gguf", first),
            ("Q8_0/big-Q8_0-00002-of-00002.gguf", second),
            ("mmproj-F16.gguf", model()),
        ]),
        ..Behaviour::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let listed = pull(&hub, folder.path(), &["hf:owner/repo", "--list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let quants: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| group["quant"].as_str())
        .collect();
    assert_eq!(quants, ["Q8_0", "Q4_K_M"]);
    let undecided = pull(&hub, folder.path(), &["hf:owner/repo"]);
    assert_eq!(undecided.status.code(), Some(2));
    assert!(
        stderr(&undecided).contains("choose one with --quant"),
        "{}",
        stderr(&undecided)
    );
    // All parts come, whichever is named, and they are one model.
    let to = folder.path().join("here");
    for source in ["hf:owner/repo:q8_0", "hf:owner/repo/Q8_0/big-Q8_0-00002-of-00002.gguf"] {
        let pulled = pull(&hub, folder.path(), &[source, "--to", to.to_str().unwrap(), "--json"]);
        assert!(pulled.status.success(), "{}", stderr(&pulled));
        let report: Value = serde_json::from_slice(&pulled.stdout).unwrap();
        assert_eq!(report["files"].as_array().unwrap().len(), 2);
        assert!(
            report["path"]
                .as_str()
                .unwrap()
                .ends_with("big-Q8_0-00001-of-00002.gguf")
        );
        assert_eq!(Gguf::open(report["path"].as_str().unwrap()).unwrap().parts(), 2);
    }
    assert_eq!(names(&to).len(), 2);
    // A repository that lacks a part.
    hub.set(|hub| {
        hub.files.remove("Q8_0/big-Q8_0-00002-of-00002.gguf");
    });
    let failed = pull(&hub, folder.path(), &["hf:owner/repo:Q8_0"]);
    assert!(stderr(&failed).contains("only 1 of the 2 parts"), "{}", stderr(&failed));
}

#[test]
fn addresses_of_any_server_are_taken() {
    let hub = LoopbackHub::start(Behaviour {
        cuts: vec![3000],
        ..one()
    });
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/files/model-Q4_K_M.gguf", hub.cdn);
    let to = folder.path().join("mine.gguf");
    let sum = sha256(&model());
    let args = [url.as_str(), "--to", to.to_str().unwrap(), "--sha256", &sum];
    let pulled = pull(&hub, folder.path(), &args);
    assert!(pulled.status.success(), "{}", stderr(&pulled));
    assert!(stderr(&pulled).contains("SHA-256 is right"));
    // Without a checksum the length and the header are what can be checked.
    let pulled = pull(&hub, folder.path(), &[&url]);
    assert!(pulled.status.success() && stderr(&pulled).contains("only the length was checked"));
    let wrong = pull(
        &hub,
        folder.path(),
        &[
            &url,
            "--to",
            to.to_str().unwrap(),
            "--force",
            "--sha256",
            &"1".repeat(64),
        ],
    );
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(
        sha256(&std::fs::read(&to).unwrap()),
        sum,
        "what was there is still there"
    );
    // Pages of the hub mean the files they are about.
    let page = format!("http://{}/owner/repo/blob/main/model-Q4_K_M.gguf", hub.address);
    assert!(pull(&hub, folder.path(), &[&page]).status.success());
    assert!(folder.path().join("owner/repo/model-Q4_K_M.gguf").exists());
}

#[test]
fn two_at_once_do_not_mix_their_bytes() {
    let hub = LoopbackHub::start(Behaviour {
        stall: Some(20_000),
        ..one()
    });
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pull(&hub, folder.path(), &[FILE, "--timeout", "3", "--retries", "3"]));
        let part = folder.path().join("owner/repo/.model-Q4_K_M.gguf.part");
        while std::fs::metadata(&part).map_or(0, |part| part.len()) == 0 && !first.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let second = pull(&hub, folder.path(), &[FILE]);
        assert_eq!(second.status.code(), Some(1));
        assert!(
            stderr(&second).contains("another hearth fetches"),
            "{}",
            stderr(&second)
        );
        hub.set(|hub| hub.stall = None);
        let first = first.join().unwrap();
        assert!(first.status.success(), "{}", stderr(&first));
    });
}
