//! `hearth profile` from outside: what it writes, that a replay says the same, and that the simulator agrees with the run.
#![cfg(feature = "demo")]

#[path = "common/command.rs"]
mod command;

use std::path::Path;

use assert_cmd::assert::Assert;
use serde_json::Value;

use command::{hearth, stderr, stdout};

fn profile(args: &[&str]) -> Assert {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile-cache");
    hearth(&["profile"]).env("HEARTH_CACHE", cache).args(args).assert()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

const REASONER: [&str; 4] = ["--model", "demo-reasoner", "--threads", "2"];

/// Hit rates after a warm-up on a quarter of the experts: the run and its simulation are within three points, and the
/// default policy reaches 0.85 of the optimum.
#[test]
fn the_simulator_agrees_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("new/profile");
    let place = ["--samples", "48", "--output", output.to_str().unwrap(), "--json"];
    let printed = profile(&[&REASONER[..], &place].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();

    let measured = &report["measured"];
    assert_eq!(
        (&measured["capacity"], &measured["policy"]),
        (&8.into(), &"predictive".into())
    );
    assert!(
        number(&measured["selections"]) > 20_000.0,
        "too few to say anything: {measured}"
    );
    let (rate, simulated) = (number(&measured["hit_rate"]), number(&measured["simulated"]));
    assert!((rate - simulated).abs() < 0.03, "{measured}");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 5 * 5);
    let default = |row: &&Value| row["policy"] == "predictive" && row["capacity"] == 8 && row["slots"] == 8;
    let row = rows.iter().find(default).unwrap();
    assert!(number(&row["of_optimum"]) >= 0.85, "{row}");
    // The default of large models.
    let at = |policy: &str| rows.iter().find(|row| row["policy"] == policy && row["capacity"] == 8);
    let (few, fixed) = (at("benefit").unwrap(), at("static").unwrap());
    assert!(number(&few["of_optimum"]) >= 0.85, "{few}");
    assert!(number(&few["uploads_per_token"]) <= 0.3, "{few}");
    assert!(number(&few["hit_rate"]) > number(&fixed["hit_rate"]), "{few} {fixed}");
    assert_eq!(report["simulation"]["start"], "heat");

    let geometry = &report["geometry"];
    assert_eq!(
        (&geometry["experts"], &geometry["experts_per_token"]),
        (&32.into(), &4.into())
    );
    // What they were called before.
    assert_eq!((&measured["slots"], &geometry["active"]), (&8.into(), &4.into()));
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len() as u64, geometry["layers"].as_u64().unwrap());
    for layer in layers {
        assert_eq!(layer["selections"].as_array().unwrap().len(), 32);
        assert!((0.0..=5.0).contains(&number(&layer["entropy"])));
    }

    assert_eq!(json(&output.join("profile.json")), report);
    for picture in ["heat-map.svg", "hit-rates.svg"] {
        let svg = std::fs::read_to_string(output.join(picture)).unwrap();
        roxmltree::Document::parse(&svg).unwrap();
        assert!(svg.contains("demo-reasoner"));
    }
    let html = std::fs::read_to_string(output.join("index.html")).unwrap();
    assert_eq!(html.matches("<svg").count(), 2);
    assert!(stderr(&printed).contains("The heat map is kept in"));
    let heat = std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path());
    let mut heat = heat.filter(|path| path.extension().is_some_and(|extension| extension == "heat"));
    assert!(std::fs::read(heat.next().unwrap()).unwrap().starts_with(b"HRTHHEAT"));
}

#[test]
fn a_replay_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.txt");
    std::fs::write(&prompts, "What is 3 plus 4?\n\nHello!\n").unwrap();
    let recorded = folder.path().join("recorded");
    let capacities = ["--capacities", "25%,50"];
    let place = [
        "--prompts",
        prompts.to_str().unwrap(),
        "--generate",
        "12",
        "--output",
        recorded.to_str().unwrap(),
    ];
    let printed = profile(&[&REASONER[..], &place, &capacities].concat()).success();
    for part in ["demo-reasoner", "hit rate", "lfu-decay", "simulated"] {
        assert!(stdout(&printed).contains(part), "{part}:\n{}", stdout(&printed));
    }
    let report = json(&recorded.join("profile.json"));

    let trace = recorded.join("routing.trace");
    let replayed = folder.path().join("replayed");
    let place = ["--output", replayed.to_str().unwrap(), "--json"];
    let again = profile(&[&["--simulate", trace.to_str().unwrap()], &place[..], &capacities].concat()).success();
    let again: Value = serde_json::from_str(&stdout(&again)).unwrap();
    for part in ["rows", "layers", "geometry", "simulation"] {
        assert_eq!(again[part], report[part], "{part}");
    }
    assert!(again["measured"].is_null());
    assert_eq!(json(&replayed.join("profile.json")), again);

    // Without a file, the trace of the folder; and nothing is written that was not asked for.
    let found = profile(&[
        "--simulate",
        "--output",
        recorded.to_str().unwrap(),
        "--json",
        "--capacities",
        "25%",
    ])
    .success();
    let found: Value = serde_json::from_str(&stdout(&found)).unwrap();
    assert_eq!(found["rows"].as_array().unwrap().len(), 5);

    let mut bytes = std::fs::read(&trace).unwrap();
    *bytes.last_mut().unwrap() = 7;
    let damaged = folder.path().join("damaged.trace");
    std::fs::write(&damaged, bytes).unwrap();
    let refused = profile(&["--simulate", damaged.to_str().unwrap()]).code(1);
    assert!(
        stderr(&refused).contains("selects an expert that does not exist"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn nonsense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "hello").unwrap();
    let empty = folder.path().join("empty.jsonl");
    std::fs::write(&empty, "\n").unwrap();
    let inside = text.join("profile");
    let (text, empty, inside) = (
        text.to_str().unwrap(),
        empty.to_str().unwrap(),
        inside.to_str().unwrap(),
    );
    for (args, code, message) in [
        (&["--simulate", text][..], 1, "no routing trace"),
        (&["--simulate", inside], 1, "record a trace with `hearth profile`"),
        (&["--model", "demo-narrator"], 1, "has no experts"),
        (&["--prompts", empty], 1, "there is no prompt in"),
        (&["--output", inside], 1, "cannot create the folder"),
        (&["--capacities", "25%,120%"], 2, "between 0% and 100%"),
        (&["--generate", "1"], 2, "1 is not in"),
        (&["--simulate", text, "--samples", "3"], 2, "cannot be used with"),
    ] {
        let refused = profile(args).code(code);
        assert!(stderr(&refused).contains(message), "{args:?}: {}", stderr(&refused));
        assert!(stdout(&refused).is_empty());
    }
}
