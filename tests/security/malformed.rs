//! Ten thousand requests that are wrong in some way, while others stream. `HEARTH_TEST_SEED` repeats a run.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use super::{Hearth, Others, status};

const REQUESTS: usize = 10_000;
const THREADS: usize = 8;

/// What is made wrong: requests of all kinds, which end early if they get through.
fn seeds() -> Vec<(&'static str, Value)> {
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]);
    let tool =
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}});
    vec![
        (
            "/v1/chat/completions",
            json!({"model": "narrator", "messages": messages, "max_tokens": 2, "temperature": 0.5, "stop": ["x"], "n": 1,
                   "tools": [tool], "stream": true, "logit_bias": {"5": 1.5}, "stream_options": {"include_usage": true}}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": "reasoner", "messages": messages, "max_tokens": 2, "response_format": {"type": "json_schema",
                   "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}}),
        ),
        (
            "/v1/completions",
            json!({"model": "narrator", "prompt": ["a", "b"], "max_tokens": 1, "logprobs": 2, "echo": false}),
        ),
        (
            "/v1/responses",
            json!({"model": "narrator", "input": "Hello", "max_output_tokens": 2, "stream": true}),
        ),
        (
            "/v1/messages",
            json!({"model": "narrator", "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]}),
        ),
        (
            "/api/v1/generate",
            json!({"model": "narrator", "prompt": "Hello", "max_tokens": 2, "temperature": 0}),
        ),
        (
            "/completion",
            json!({"prompt": "Hello", "n_predict": 1, "samplers": ["top_k"], "grammar": "root ::= \"a\""}),
        ),
        (
            "/infill",
            json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 1}),
        ),
        ("/tokenize", json!({"content": "Hello", "add_special": true})),
        ("/detokenize", json!({"tokens": [1, 2, 3]})),
        ("/apply-template", json!({"messages": messages})),
        (
            "/v1/embeddings",
            json!({"input": ["a", "b"], "encoding_format": "float"}),
        ),
        ("/v1/messages/count_tokens", json!({"messages": messages})),
    ]
}

fn strange_value(random: &mut Rng) -> Value {
    match random.u8(0..14) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(1e308),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!(""),
        6 => json!("\u{0}\u{202e}\u{fffd}😀"),
        7 => json!([]),
        8 => json!({}),
        9 => json!([[[[null]]]]),
        10 => json!(true),
        11 => json!("x".repeat(random.usize(0..5000))),
        12 => json!([1, "a", null, {}]),
        _ => json!({"type": "nothing", "": {"$ref": "#"}}),
    }
}

/// Changes one value anywhere in it, takes one out, or adds one.
fn change(value: &mut Value, random: &mut Rng) {
    let deeper = random.u8(0..4) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            let key = &keys[random.usize(0..keys.len())];
            match random.u8(0..6) {
                0 => drop(fields.shift_remove(key)),
                1 => drop(fields.insert(format!("{key}x"), strange_value(random))),
                _ if deeper => change(&mut fields[key.as_str()], random),
                _ => drop(fields.insert(key.clone(), strange_value(random))),
            }
        }
        Value::Array(items) if !items.is_empty() && deeper => {
            let index = random.usize(0..items.len());
            change(&mut items[index], random);
        }
        other => *other = strange_value(random),
    }
}

/// Changes bytes, without respect for what they are.
fn garble(bytes: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..6) {
        if bytes.is_empty() {
            return;
        }
        let at = random.usize(0..bytes.len());
        match random.u8(0..6) {
            0 => bytes[at] ^= 1 << random.u8(0..8),
            1 => bytes[at] = random.u8(..),
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, *random.choice(b"{}[]\",:\\\0\r\n \xff").unwrap()),
            _ => {
                let end = (at + random.usize(1..40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// A request that is wrong in one way or several.
fn request(random: &mut Rng, seeds: &[(&'static str, Value)]) -> Vec<u8> {
    let (path, body) = &seeds[random.usize(0..seeds.len())];
    let (mut method, mut path, mut body) = ("POST".to_owned(), (*path).to_owned(), body.clone());
    for _ in 0..random.usize(1..4) {
        change(&mut body, random);
    }
    let mut body = body.to_string().into_bytes();
    let mut headers = String::new();
    let mut length = Some(body.len().to_string());
    match random.u8(0..10) {
        0 => {
            let methods = [
                "GET",
                "PUT",
                "DELETE",
                "PATCH",
                "HEAD",
                "OPTIONS",
                "TRACE",
                "post",
                "X",
                "",
                "POST POST",
            ];
            method = (*random.choice(methods).unwrap()).to_owned();
        }
        1 => {
            let paths = [
                "/",
                "",
                "*",
                "/%",
                "/%00",
                "/v1/%2e%2e/%2e%2e/etc/passwd",
                "/v1/models/%ff",
                "http://localhost/v1/models",
                "/v1/chat/completions?%",
                "//",
                "/v1/responses/resp_x",
                "/slots/-1?action=save",
                "/slots/99999999999?action=erase",
                "/slots/0?action=restore",
                "/api/v1/expert-stats?detail=%f0",
                "/v1/models/../../x",
                "/metrics?x=\u{1}",
                "/ä",
            ];
            path = (*random.choice(paths).unwrap()).to_owned();
        }
        2 => garble(&mut body, random),
        3 => {
            body = (0..random.usize(0..400)).map(|_| random.u8(..)).collect();
        }
        4 => {
            let lines = [
                "Content-Length: 5\r\n",
                "Content-Length: -1\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: x\r\n",
                "Expect: 100-continue\r\n",
                "Upgrade: websocket\r\nConnection: Upgrade\r\n",
                "Content-Encoding: gzip\r\n",
                ": empty\r\n",
                "No colon\r\n",
                "X-\u{7f}: x\r\n",
                " folded\r\n",
                "Origin: http://evil.example\r\n",
                "Authorization: Bearer \u{ff}\r\n",
                "Content-Type: application/xml\r\n",
                "X-Request-Id: a\tb\r\n",
                "Accept-Encoding: \u{1}\r\n",
                "Range: bytes=5-1\r\n",
                "Host: other.example\r\n",
            ];
            headers = (0..random.usize(1..4)).map(|_| random.choice(lines).unwrap()).collect();
        }
        5 => {
            let lengths = [
                "0",
                "1",
                "999999999999999999999",
                "-5",
                "0x10",
                " ",
                "5, 5",
                "1e3",
                "100000000",
            ];
            length = random.bool().then(|| (*random.choice(lengths).unwrap()).to_owned());
        }
        _ => {}
    }
    if length.as_deref() == Some(&body.len().to_string()) || random.u8(0..4) > 0 {
        // Most say what they send, so that they are read to the end.
        length = length
            .filter(|length| length.parse::<usize>().is_err())
            .or(Some(body.len().to_string()));
    }
    let length = length
        .map(|length| format!("Content-Length: {length}\r\n"))
        .unwrap_or_default();
    let version = if random.u8(0..16) == 0 {
        random.choice(["HTTP/1.0", "HTTP/2.0", "HTTP/9", "x"]).unwrap()
    } else {
        "HTTP/1.1"
    };
    let mut head = format!(
        "{method} {path} {}\r\nHost: localhost\r\n{length}{headers}\r\n",
        version
    )
    .into_bytes();
    if random.u8(0..12) == 0 {
        garble(&mut head, random);
    }
    head.extend(body);
    head
}

#[test]
fn ten_thousand_malformed_requests_harm_nobody() {
    let mut server = Hearth::start("", "", &[], &[]);
    let others = Others::start(&server, 4);
    let seed = std::env::var("HEARTH_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(2026);
    let (next, seeds) = (AtomicUsize::new(0), seeds());
    let mut statuses: BTreeMap<Option<u16>, usize> = BTreeMap::new();
    let address = server.address;
    std::thread::scope(|scope| {
        let work = || {
            let mut seen: BTreeMap<Option<u16>, usize> = BTreeMap::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= REQUESTS {
                    return seen;
                }
                let bytes = request(&mut Rng::with_seed(seed + number as u64), &seeds);
                let mut socket = TcpStream::connect(address).unwrap();
                // An end without a farewell, and no port that waits for one.
                socket2::SockRef::from(&socket)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                // Who announces more than it sends is left to wait.
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                let _ = socket.write_all(&bytes);
                let status = status(&mut socket);
                if status.is_some_and(|status| status >= 500 && status != 501) {
                    panic!("{status:?} for number {number}: {}", String::from_utf8_lossy(&bytes));
                }
                *seen.entry(status).or_default() += 1;
            }
        };
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            for (status, count) in worker.join().unwrap() {
                *statuses.entry(status).or_default() += count;
            }
        }
    });
    let streams = others.finish();
    println!("{statuses:?}, and {streams} streams of others");
    // The generator must reach what it is for: many answers of many kinds, and few that are waited for in vain.
    let of = |status: u16| statuses.get(&Some(status)).copied().unwrap_or_default();
    assert!(of(400) > REQUESTS / 3 && of(200) > 100 && of(404) > 10, "{statuses:?}");
    assert!(
        statuses.get(&None).copied().unwrap_or_default() < REQUESTS / 10,
        "{statuses:?}"
    );
    server.assert_well();
}
