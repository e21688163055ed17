//! The heat map survives whatever happens to who writes it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hearth::experts::heat::{HeatMap, heat_file};
use hearth::fingerprint::Fingerprint;

const LAYERS: usize = 48;
const EXPERTS: usize = 512;
/// Set in the process that writes.
const WRITER: &str = "TEST_HEAT_WRITER";

fn model() -> Fingerprint {
    Fingerprint::of([b"model".as_slice()])
}

/// Not a test by itself: in the process that the test below starts, writes heat maps until it is killed.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let mut map = HeatMap::new(model(), LAYERS, EXPERTS);
    let mut token = 0;
    loop {
        for layer in 0..LAYERS {
            map.observe(layer, &[token % 512, (token * 7) % 512]);
        }
        token += 1;
        map.save(Path::new(&path)).unwrap();
    }
}

/// Files that are neither the heat map nor the lock.
fn unfinished(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| Path::new(name).extension().is_none() && name != ".heat-lock")
        .count()
}

/// Killed without warning at any moment, thirty times: there is always a whole heat map, and never an older one.
#[test]
fn a_killed_writer_leaves_a_loadable_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = heat_file(&model(), folder.path());
    HeatMap::new(model(), LAYERS, EXPERTS).save(&path).unwrap();
    let (mut written, mut left) = (0, 0);
    for round in 0..30 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(WRITER, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(15_000 + round * 1_370));
        // SIGKILL: nothing can be done about it.
        child.kill().unwrap();
        child.wait().unwrap();
        left += usize::from(unfinished(folder.path()) > 0);
        let map = HeatMap::load(&path, model(), LAYERS, EXPERTS).unwrap().unwrap();
        written += u64::from(map.observed() > 0);
        // As at each start of a model.
        assert_eq!(unfinished(folder.path()), 0);
    }
    assert!(written > 0, "no writer got so far as to write");
    assert!(left > 0, "no writer was killed while it wrote");
}
