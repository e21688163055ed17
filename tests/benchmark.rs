//! `hearth benchmark` from outside: what it prints, what it writes, and what it refuses.
#![cfg(feature = "demo")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use common::Server;
use common::command::{hearth, stderr, stdout};

fn benchmark(args: &[&str]) -> assert_cmd::assert::Assert {
    hearth(&["benchmark", "--model", "demo-reasoner", "--threads", "2"])
        .args(args)
        .assert()
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
        (
            &["--conversation", "--prompt-tokens", "4000"],
            1,
            "room for two answers",
        ),
        (&["--mixed"], 1, "a slot for the long prompt"),
        (&["--mixed", "--stagger", "1s"], 2, "cannot be used with"),
        (&["--placements", "--output", "report"], 2, "cannot be used with"),
        (
            &["--placements", "--concurrency", "9", "--parallel", "8"],
            1,
            "raise --parallel",
        ),
        (&["--placements", "--prompt-tokens", "4090"], 1, "raise --context"),
        (&["--tokens", "4"], 2, "--overhead"),
        (&["--output", inside.to_str().unwrap()], 1, "cannot create the folder"),
    ] {
        let refused = benchmark(args).code(code);
        assert!(stderr(&refused).contains(message), "{args:?}: {}", stderr(&refused));
        assert!(stdout(&refused).is_empty());
    }
}

/// A configuration with copies of a quarter of the experts in main memory, and these drafts.
fn cached(folder: &std::path::Path, drafts: &str) -> String {
    let config = folder.join(format!("{drafts}.toml"));
    let experts = "experts = { placement = \"cache\", device = \"cpu\", cache = \"25%\" }";
    let draft = format!("draft = {{ kind = \"{drafts}\" }}");
    let text = format!("[[model]]\nname = \"demo-reasoner\"\npath = \"demo:reasoner\"\n{experts}\n{draft}\n");
    std::fs::write(&config, text).unwrap();
    config.to_str().unwrap().to_owned()
}

#[test]
fn placements_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let lists = ["--prompt-tokens", "8,40", "--generate", "24", "--concurrency", "1,2"];
    let config = cached(folder.path(), "mtp");
    let args = ["--placements", "--repeat", "1", "--json", "--config", &config];
    let printed = benchmark(&[&args[..], &lists].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();
    // 8 entries and one of zeros, 204 KiB each; the head has copies, too, but only with drafts.
    assert_eq!(report["cache_bytes"], 9 * 204 * 1024);
    assert_eq!(report["notes"], serde_json::json!([]));
    let placements = report["placements"].as_array().unwrap();
    let names: Vec<&str> = placements.iter().map(|way| way["name"].as_str().unwrap()).collect();
    let cache = "cache of 8 of 32 experts per layer";
    assert_eq!(
        names,
        ["experts on the CPU", cache, &format!("{cache}, drafts of its head")]
    );
    for (index, way) in placements.iter().enumerate() {
        let cases = way["cases"].as_array().unwrap();
        let of_cases: Vec<[u64; 3]> = cases
            .iter()
            .map(|case| ["prompt_tokens", "generate", "concurrency"].map(|key| case[key].as_u64().unwrap()))
            .collect();
        assert_eq!(of_cases, [[8, 24, 1], [8, 24, 2], [8, 1, 1], [40, 1, 1]]);
        for case in &cases[..2] {
            assert!(number(&case["decode_per_second"]["median"]) > 0.0, "{way}");
            assert_eq!(number(&case["drafts"]["computed"]) > 0.0, index == 2, "{way}");
        }
        for case in &cases[2..] {
            assert!(number(&case["prefill_per_second"]["median"]) > 0.0, "{way}");
        }
        // The longest prompt arrives while as many streams decode as ever.
        let mixed = &way["mixed"];
        assert_eq!(
            (&mixed["prompt_tokens"], &mixed["concurrency"]),
            (&40.into(), &4.into())
        );
        for value in ["decode_before_per_second", "longest_pause_ms", "first_token_ms"] {
            assert!(number(&mixed[value]["median"]) > 0.0, "{value}: {mixed}");
        }
        assert_eq!(way["gpu_bytes"].as_u64(), Some(0), "all is in main memory");
        assert_eq!(way["cases"][0]["experts"].is_null(), index == 0);
    }
    // Each was told as soon as it was measured.
    let told = stderr(&printed);
    let rows = told.lines().filter(|line| line.contains("; decode 24, 2 at once: "));
    assert_eq!(rows.count(), 3, "{told}");
    // Without a cache there is nothing to compare.
    let refused = benchmark(&["--placements"]).failure();
    assert!(stderr(&refused).contains("nothing to compare"), "{}", stderr(&refused));
}

#[test]
fn placements_are_one_table_with_defaults_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let config = cached(folder.path(), "none");
    let printed = benchmark(&["--placements", "--generate", "4", "--repeat", "1", "--config", &config]).success();
    let text = stdout(&printed);
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4, "{text}");
    // The model has a context of 4096 tokens, so that a prompt of as many does not fit.
    for column in [
        "decode 4, 1 at once | decode 4, 4 at once | decode 4, 8 at once | prefill of 512 | hit rate",
        "512 tokens beside 4: decode that is left",
    ] {
        assert!(rows[0].contains(column), "{column}: {text}");
    }
    assert!(text.contains("Without drafts: they are switched off"), "{text}");
}

/// `hearth benchmark` against servers that run already.
fn of_servers(args: &[&str]) -> assert_cmd::assert::Assert {
    // A fast machine generates a few tokens before the client reads the first: then there is no rate.
    hearth(&[
        "benchmark",
        "--prompt-tokens",
        "40",
        "--generate",
        "48",
        "--repeat",
        "2",
    ])
    .args(args)
    .assert()
}

#[test]
fn servers_are_compared_side_by_side() {
    let server = Server::start("");
    let output = tempfile::tempdir().unwrap();
    let (first, second) = (
        format!("http://{}", server.address),
        format!("http://{}/v1", server.address),
    );
    let servers = ["--url", &first, "--name", "one", "--url", &second, "--name", "two"];
    let load = ["--concurrency", "1,3", "--stagger", "20ms", "--model", "demo-narrator"];
    let place = ["--json", "--output", output.path().to_str().unwrap()];
    let printed = of_servers(&[&servers[..], &load, &place].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();

    assert_eq!(report["stagger_ms"], 20);
    for (index, name) in ["one", "two"].into_iter().enumerate() {
        let server = &report["servers"][index];
        assert_eq!(server["name"], name);
        assert_eq!(server["model"], "demo-narrator");
        assert_eq!(server["prompt_length"], "tokenize");
        // Exact prompts, all tokens, nothing from a cache, and counts from `usage`.
        assert_eq!(server["notes"], serde_json::json!([]));
    }
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let streams = number(&case["concurrency"]);
        for server in case["servers"].as_array().unwrap() {
            for rate in ["decode_per_second", "prefill_per_second", "total_per_second"] {
                assert!(number(&server[rate]["min"]) > 0.0, "{rate}: {server}");
            }
            assert!((number(&server["first_token_ms"]["samples"]) - 2.0 * streams).abs() < 0.1);
            let (mean, worst) = (&server["first_token_mean_ms"], &server["first_token_worst_ms"]);
            assert!(number(&mean["median"]) <= number(&worst["median"]));
            let pause = number(&server["longest_pause_ms"]["max"]);
            assert!(pause >= number(&server["inter_token_ms"]["p50"]), "{server}");
        }
        assert!(case["servers"][0]["ratio_to_first"].is_null());
        let ratios = &case["servers"][1]["ratio_to_first"];
        for ratio in ["decode_per_second", "first_token_worst_ms", "longest_pause_ms"] {
            assert!(
                number(&ratios[ratio]["min"]) <= number(&ratios[ratio]["max"]),
                "{ratios}"
            );
        }
    }
    // Each server computed what was asked of it: a probe of one token, then 3 rounds of 1 and 3 streams.
    let tokens = 2.0 * (1.0 + 3.0 * 4.0 * 48.0);
    server.wait_for(
        "hearth_generation_tokens_total",
        "demo-narrator",
        tokens,
        Duration::from_secs(30),
    );

    let markdown = std::fs::read_to_string(output.path().join("report.md")).unwrap();
    assert!(
        markdown.contains("## Ratios to one") && markdown.contains("![Decode"),
        "{markdown}"
    );
    let html = std::fs::read_to_string(output.path().join("report.html")).unwrap();
    roxmltree::Document::parse_with_options(
        &html,
        roxmltree::ParsingOptions {
            allow_dtd: true,
            ..roxmltree::ParsingOptions::default()
        },
    )
    .unwrap();
}

#[test]
fn a_server_is_measured_through_its_chat_template() {
    let server = Server::start("");
    let url = format!("http://{}", server.address);
    let printed = of_servers(&["--url", &url, "--endpoint", "chat", "--model", "demo-reasoner"]).success();
    let text = stdout(&printed);
    for part in [
        "demo-reasoner",
        "/v1/chat/completions",
        "decode tokens/s",
        "longest pause",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    // The template's tokens count: no note says that prompts were longer than asked for.
    assert!(!text.contains("of the tokens asked for"), "{text}");
    let two_models = of_servers(&["--url", &url]).success();
    assert!(
        stdout(&two_models).contains("it has more models"),
        "{}",
        stdout(&two_models)
    );
}

/// The parts of a scenario by their names: the values of one server.
fn parts(report: &Value, server: usize) -> Vec<(&str, &Value)> {
    let parts = report["parts"].as_array().unwrap();
    parts
        .iter()
        .map(|part| (part["name"].as_str().unwrap(), &part["servers"][server]))
        .collect()
}

#[test]
fn the_turns_of_a_conversation_are_measured() {
    let args = [
        "--conversation",
        "--prompt-tokens",
        "300",
        "--generate",
        "16",
        "--repeat",
        "1",
    ];
    let printed = benchmark(&[&args[..], &["--json"]].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();
    let parts = parts(&report, 0);
    let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    let others = [
        "second turn",
        "answered again",
        "last message edited",
        "new conversation, same system prompt",
        "after six calls of a tool",
        "next question, a second later",
    ];
    assert_eq!(names[0], "first turn");
    assert_eq!(names[1..], others);
    let median = |part: usize, value: &str| number(&parts[part].1[value]["median"]);
    // Nobody saw the first turn before; each other one has at least the system prompt from it, but for the one without tools.
    assert!(median(0, "cached_tokens") < 1.0);
    assert!(median(0, "prompt_tokens") > 300.0);
    for (part, name) in (1..).zip(others) {
        let cached = median(part, "cached_tokens");
        let least = if name == "after six calls of a tool" {
            -1.0
        } else {
            300.0
        };
        // Of the same prompt again nothing is computed.
        let all = median(part, "prompt_tokens");
        assert!(cached > least && cached <= all, "{name}: {cached}");
        assert_eq!(cached >= all, name == "answered again", "{name}: {cached}");
        assert!(median(part, "to_first_turn") > 0.0, "{name}");
    }
    assert!(parts[0].1["to_first_turn"].is_null());
}

#[test]
fn scenarios_compare_servers() {
    let server = Server::start("");
    let url = format!("http://{}", server.address);
    let servers = [
        "--url",
        &url,
        "--name",
        "one",
        "--url",
        &url,
        "--name",
        "two",
        "--model",
        "demo-narrator",
    ];
    let output = tempfile::tempdir().unwrap();
    let place = ["--json", "--output", output.path().to_str().unwrap()];
    let printed = of_servers(&[&servers[..], &["--conversation"], &place].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();
    for (name, two) in parts(&report, 1) {
        assert!(
            number(&two["ratio_to_first"]["first_token_ms"]["median"]) > 0.0,
            "{name}: {two}"
        );
    }
    let markdown = std::fs::read_to_string(output.path().join("report.md")).unwrap();
    assert!(
        markdown.contains("## Ratios to one") && markdown.contains("second turn"),
        "{markdown}"
    );

    let load = [
        "--mixed",
        "--concurrency",
        "2",
        "--prompt-tokens",
        "400",
        "--generate",
        "200",
    ];
    let mixed = hearth(&["benchmark", "--repeat", "1", "--json"])
        .args(servers)
        .args(load)
        .assert();
    let report: Value = serde_json::from_str(&stdout(&mixed.success())).unwrap();
    for server in 0..2 {
        let [(_, values)] = parts(&report, server)[..] else {
            panic!("{report}");
        };
        for value in [
            "decode_before_per_second",
            "decode_while_per_second",
            "longest_pause_ms",
            "first_token_ms",
        ] {
            assert!(number(&values[value]["median"]) > 0.0, "{value}: {values}");
        }
    }
}

#[test]
fn drafts_are_compared_with_none() {
    let lists = ["--prompt-tokens", "8", "--generate", "12", "--repeat", "1", "--json"];
    let printed = benchmark(&[&["--drafts", "--draft", "mtp"], &lists[..]].concat()).success();
    let report: Value = serde_json::from_str(&stdout(&printed)).unwrap();
    let [none, mtp] = report["drafts"].as_array().unwrap().as_slice() else {
        panic!("{report}");
    };
    assert_eq!(
        (none["name"].as_str(), mtp["name"].as_str()),
        (Some("none"), Some("mtp"))
    );
    assert_eq!(none["cases"][0]["drafts"]["computed"], 0);
    let drafts = &mtp["cases"][0]["drafts"];
    assert!(number(&drafts["computed"]) > 0.0, "{drafts}");
    assert!(number(&drafts["accepted"]) <= number(&drafts["computed"]), "{drafts}");
    let refused = benchmark(&["--drafts", "--draft", "none"]).failure();
    assert!(stderr(&refused).contains("nothing to compare"), "{}", stderr(&refused));
}

/// A server that answers each request with the next of these responses, and then is gone.
fn scripted(responses: Vec<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for response in responses {
            let (mut socket, _) = listener.accept().unwrap();
            read_request(&mut socket);
            socket.write_all(response.as_bytes()).unwrap();
        }
    });
    address
}

/// Reads a request with its body, so that closing the socket does not reset the connection.
fn read_request(socket: &mut TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    socket.read_exact(&mut vec![0; length]).unwrap();
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn servers_that_cannot_be_measured_are_refused() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let models = response("200 OK", r#"{"data": [{"id": "m"}]}"#);
    let done = "data: [DONE]\n\n";
    let answer = r#"data: {"choices": [{"text": "x", "finish_reason": "length"}]}"#;
    let answer = response("200 OK", &format!("{answer}\n\n{done}"));
    let no_models = scripted(vec![response("404 Not Found", "no such page")]);
    let empty = scripted(vec![response("200 OK", r#"{"data": []}"#)]);
    let unknown = r#"{"error": {"message": "there is no model `m`"}}"#;
    let unknown = scripted(vec![models.clone(), response("400 Bad Request", unknown)]);
    let broken = "data: {\"error\": {\"message\": \"out of memory\"}}\n\n";
    let broken = scripted(vec![models.clone(), response("200 OK", broken)]);
    let cut = scripted(vec![models.clone(), response("200 OK", "data: {\"choices\": []}\n\n")]);
    let uncounted = scripted(vec![models, answer, response("404 Not Found", "")]);
    let silent = silent.local_addr().unwrap();
    for (address, message) in [
        (dead, "is a server running at"),
        (no_models, "/v1/models answered 404 Not Found: no such page"),
        (empty, "--model names one"),
        (unknown, "there is no model `m`"),
        (broken, "out of memory"),
        (cut, "closed the stream before its end"),
        (uncounted, "prompts of a known length cannot be made"),
    ] {
        let refused = of_servers(&["--url", &format!("http://{address}")]).code(1);
        let text = stderr(&refused);
        assert!(
            text.contains(message) && text.contains(&address.to_string()),
            "{message}: {text}"
        );
    }
    let url = format!("http://{silent}");
    let refused = of_servers(&["--url", &url, "--model", "m", "--timeout", "300ms"]).code(1);
    assert!(stderr(&refused).contains("--timeout"), "{}", stderr(&refused));

    for (args, code, message) in [
        (&["--url", "host:80"][..], 2, "http://HOST:PORT"),
        (&["--url", "ftp://host"], 2, "http://HOST:PORT"),
        (&["--url", &url, "--url-key", "a\nb"], 2, "no key has"),
        (&["--name", "x"], 2, "--url"),
        (&["--url", &url, "--context", "64"], 2, "cannot be used with"),
        (&["--url", &url, "--placements"], 2, "cannot be used with"),
        (&["--url", &url, "--stagger", "fast"], 2, "time span"),
        (
            &["--url", &url, "--name", "a", "--name", "b"],
            1,
            "2 --name for 1 --url",
        ),
        (
            &["--url", &url, "--url-key", "a", "--url-key", "b"],
            1,
            "2 --url-key for 1 --url",
        ),
        (
            &["--url", &url, "--model", "a", "--model", "b"],
            1,
            "2 --model for 1 --url",
        ),
    ] {
        let refused = of_servers(args).code(code);
        assert!(stderr(&refused).contains(message), "{args:?}: {}", stderr(&refused));
    }
}
