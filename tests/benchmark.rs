//! `hearth benchmark` from outside: what it prints, what it writes, and what it refuses.
#![cfg(feature = "demo")]

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn benchmark(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("hearth")
        .unwrap()
        .env("HEARTH_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
        .args(["benchmark", "--model", "demo-reasoner", "--threads", "2"])
        .args(args)
        .assert()
}

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn every_combination_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("new/report");
    let lists = [
        "--prompt-tokens",
        "8,16",
        "--generate",
        "1,6",
        "--concurrency",
        "1,3",
        "--repeat",
        "2",
    ];
    let place = ["--json", "--output", output.to_str().unwrap()];
    let printed = benchmark(&[&lists[..], &place].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();

    assert_eq!(report["hearth"], env!("CARGO_PKG_VERSION"));
    assert!(
        report["command"]
            .as_str()
            .unwrap()
            .starts_with("hearth benchmark --model demo-reasoner")
    );
    assert!(report["machine"]["cores"].as_u64().unwrap() >= 1);
    assert!(!report["machine"]["cpu"].as_str().unwrap().is_empty());
    assert_eq!(report["model"]["architecture"], "qwen3next");
    assert_eq!(report["model"]["threads"], 2);
    assert_eq!(report["model"]["experts"]["placement"], "auto");
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (generate, streams) = (number(&case["generate"]), number(&case["concurrency"]));
        let prefill = &case["prefill_per_second"];
        assert!(number(&prefill["min"]) > 0.0);
        assert!(number(&prefill["min"]) <= number(&prefill["median"]));
        assert!(number(&prefill["median"]) <= number(&prefill["max"]));
        // Each stream of each run has one first token.
        let first = &case["first_token_ms"];
        assert!((number(&first["samples"]) - 2.0 * streams).abs() < 0.1, "{case}");
        assert!(number(&first["p50"]) <= number(&first["p95"]));
        if generate > 1.0 {
            assert!(number(&case["decode_per_second"]["median"]) > 0.0);
            assert!(number(&case["decode_per_second_per_stream"]["median"]) > 0.0);
            let samples = number(&case["inter_token_ms"]["samples"]);
            assert!(samples > 0.0 && samples <= 2.0 * streams * (generate - 1.0), "{case}");
        } else {
            assert!(case["decode_per_second"].is_null() && case["inter_token_ms"].is_null());
        }
        assert!(case["experts"].is_null());
    }

    let written: Value = serde_json::from_str(&std::fs::read_to_string(output.join("report.json")).unwrap()).unwrap();
    assert_eq!(written, report);
    let markdown = std::fs::read_to_string(output.join("report.md")).unwrap();
    // A header, a rule and a row per case; each picture is there.
    let (results, memory) = markdown.split_once("\n## Memory\n").unwrap();
    assert_eq!(results.lines().filter(|line| line.starts_with('|')).count(), 10);
    assert!(memory.contains("| planned | allocated |"), "{memory}");
    let pictures: Vec<&str> = markdown.lines().filter(|line| line.starts_with("![")).collect();
    assert!(pictures.len() >= 4, "{pictures:?}");
    for picture in pictures {
        let name = picture.split(['(', ')']).nth(1).unwrap();
        let svg = std::fs::read_to_string(output.join(name)).unwrap();
        roxmltree::Document::parse(&svg).unwrap();
    }
    let html = std::fs::read_to_string(output.join("report.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("demo-reasoner"));
}

#[test]
fn a_cache_of_experts_has_its_hit_rate() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    let text = "[[model]]\nname = \"demo-reasoner\"\npath = \"demo:reasoner\"\n\
                experts = { placement = \"cache\", device = \"cpu\", cache = \"50%\" }\n";
    std::fs::write(&config, text).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let lists = ["--prompt-tokens", "8", "--generate", "12", "--repeat", "1"];
    let printed = benchmark(&[&config[..], &lists, &["--json"]].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();
    assert_eq!(report["model"]["experts"]["cache"], "50%");
    let experts = &report["cases"][0]["experts"];
    assert!(number(&experts["selections"]) > 0.0);
    let rate = number(&experts["hit_rate"]["median"]);
    assert!((0.0..=1.0).contains(&rate));
    assert!((rate - number(&experts["hits"]) / number(&experts["selections"])).abs() < 1e-9);
}

#[test]
fn the_table_is_for_people() {
    let printed = benchmark(&["--prompt-tokens", "8", "--generate", "4", "--repeat", "1"]).success();
    let text = stdout(&printed);
    for part in ["demo-reasoner", "2 threads", "decode tokens/s", "p50/p95/p99"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}

#[test]
fn nonsense_is_refused_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("report");
    for (args, code, message) in [
        (&["--prompt-tokens", "8,4090"][..], 1, "raise --context"),
        (&["--context", "64"], 1, "need a context of 640 tokens"),
        (&["--concurrency", "1,5"], 1, "raise --parallel"),
        (&["--prompt-tokens", "0"], 2, "0 is not in"),
        (&["--concurrency", "many"], 2, "invalid digit"),
        (&["--repeat", "0"], 2, "0 is not in"),
        (&["--overhead", "--generate", "4"], 2, "cannot be used with"),
        (&["--tokens", "4"], 2, "--overhead"),
        (&["--output", inside.to_str().unwrap()], 1, "cannot create the folder"),
    ] {
        let refused = benchmark(args).code(code);
        assert!(stderr(&refused).contains(message), "{args:?}: {}", stderr(&refused));
        assert!(stdout(&refused).is_empty());
    }
}

#[test]
fn placements_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    let experts = "experts = { placement = \"cache\", device = \"cpu\", cache = \"25%\" }";
    let text = format!("[[model]]\nname = \"demo-reasoner\"\npath = \"demo:reasoner\"\n{experts}\n");
    std::fs::write(&config, text).unwrap();
    let args = [
        "--placements",
        "--prompt-tokens",
        "8",
        "--generate",
        "6",
        "--repeat",
        "1",
        "--json",
    ];
    let printed = benchmark(&[&args[..], &["--config", config.to_str().unwrap()]].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();
    // 8 slots and one of zeros, 204 KiB each.
    assert_eq!(report["cache_bytes"], 9 * 204 * 1024);
    let placements = report["placements"].as_array().unwrap();
    let names: Vec<&str> = placements.iter().map(|way| way["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["experts on the CPU", "cache of 8 of 32 experts per layer"]);
    for way in placements {
        assert!(number(&way["cases"][0]["decode_per_second"]["median"]) > 0.0, "{way}");
    }
    assert!(placements[0]["cases"][0]["experts"].is_null());
    assert!(placements[1]["cases"][0]["experts"]["selections"].as_u64().unwrap() > 0);
    // Without a cache there is nothing to compare.
    let refused = benchmark(&["--placements"]).failure();
    assert!(stderr(&refused).contains("nothing to compare"), "{}", stderr(&refused));
}
