//! Two servers behind one name.

use std::io::{BufRead, BufReader};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Server, client, raw_post};
use crate::scripted::{Scripted, done, ends, head, put, says};

/// A hearth with the narrator; port 0 for any.
fn narrator(port: u16) -> Server {
    let text =
        format!("[server]\nport = {port}\n[[model]]\nname = \"narrator\"\npath = \"demo:narrator\"\nparallel = 8\n");
    Server::configured(&text, 1, None)
}

fn long(stream: bool) -> Value {
    json!({"model": "narrator", "prompt": "Once", "max_tokens": 600, "ignore_eos": true, "stream": stream})
}

fn short(server: &Server) -> (u16, Value) {
    let body =
        json!({"model": "narrator", "messages": [{"role": "user", "content": "I look around."}], "max_tokens": 8});
    server.post("/v1/chat/completions", &body)
}

/// The states of the breakers, by the address of their server.
fn breaker(front: &Server, replica: &Server) -> Option<String> {
    let metrics = client()
        .get(format!("http://{}/metrics", front.address))
        .send()
        .unwrap()
        .text()
        .unwrap();
    let label = format!("replica=\"{}\"", replica.address);
    let mut lines = metrics
        .lines()
        .filter(|line| line.starts_with("hearth_upstream_breaker_state") && line.contains(&label));
    lines.next().and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
}

#[test]
fn one_of_two_dies_and_comes_back() {
    let (stays, dies) = (narrator(0), narrator(0));
    let replica = |server: &Server| {
        format!(
            "{{ base_url = \"http://{}/v1\", breaker_failures = 3, breaker_pause = \"500ms\" }}",
            server.address
        )
    };
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"narrator\"\nupstream = [ {}, {} ]\n",
        replica(&stays),
        replica(&dies)
    );
    let front = Server::configured(&text, 1, None);
    // 16 streams, shared out.
    let (began, begins) = channel();
    let streams: Vec<_> = (0..16)
        .map(|_| {
            let (socket, began) = (raw_post(front.address, "/v1/completions", &long(true)), began.clone());
            std::thread::spawn(move || {
                let mut last = String::new();
                let mut texts = 0;
                for line in BufReader::new(socket).lines().map_while(Result::ok) {
                    let Some(data) = line.strip_prefix("data: ") else {
                        continue;
                    };
                    texts += 1;
                    if texts == 3 {
                        began.send(()).unwrap();
                    }
                    last = data.to_owned();
                    if data == "[DONE]" || data.contains("\"error\"") {
                        break;
                    }
                }
                last
            })
        })
        .collect();
    for _ in 0..16 {
        begins.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    for server in [&stays, &dies] {
        assert!(
            (server.metric("hearth_requests_running", "narrator") - 8.0).abs() < 0.5,
            "half of the streams each"
        );
    }
    dies.signal("KILL");
    let port = dies.address.port();
    // New requests go on at once, and none is lost.
    for _ in 0..8 {
        let (status, answer) = short(&front);
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(breaker(&front, &dies).as_deref(), Some("2"), "open");
    let ends: Vec<String> = streams.into_iter().map(|stream| stream.join().unwrap()).collect();
    let whole = ends.iter().filter(|end| *end == "[DONE]").count();
    assert_eq!(whole, 8, "those of the other server end as they should: {ends:?}");
    // Those that had begun are not begun anew elsewhere: their clients are told.
    assert_eq!(
        ends.iter().filter(|end| end.contains("upstream_error")).count(),
        8,
        "{ends:?}"
    );
    // Back at the same place.
    let back = narrator(port);
    let start = Instant::now();
    while breaker(&front, &dies).as_deref() != Some("0") {
        assert_eq!(short(&front).0, 200);
        assert!(start.elapsed() < Duration::from_secs(30), "the breaker does not close");
        std::thread::sleep(Duration::from_millis(50));
    }
    let before = back.metric("hearth_requests_total", "narrator");
    for _ in 0..4 {
        assert_eq!(short(&front).0, 200);
    }
    assert!(back.metric("hearth_requests_total", "narrator") > before);
}

#[test]
fn weights_and_limits_are_kept() {
    let held = || {
        Scripted::start(|_, socket| {
            head(socket);
            put(socket, &says("Once"));
            std::thread::sleep(Duration::from_secs(4));
            put(socket, &ends());
            done(socket);
        })
    };
    let (small, large) = (held(), held());
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"m\"\nupstream = [ {{ base_url = \"http://{}/v1\", max_requests = 4 }}, \
         {{ base_url = \"http://{}/v1\", weight = 3, max_requests = 9 }} ]\n",
        small.address, large.address
    );
    let server = Server::configured(&text, 1, None);
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": true});
    let post = || {
        let response = client()
            .post(format!("http://{}/v1/chat/completions", server.address))
            .body(body.to_string());
        response.send().unwrap()
    };
    let eight: Vec<_> = (0..8).map(|_| post()).collect();
    assert!(eight.iter().all(|response| response.status() == 200));
    assert_eq!((small.requests().len(), large.requests().len()), (2, 6));
    let more: Vec<_> = (0..5).map(|_| post()).collect();
    assert!(more.iter().all(|response| response.status() == 200));
    assert_eq!((small.requests().len(), large.requests().len()), (4, 9));
    let refused = post();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let texts = eight.into_iter().chain(more).map(|response| response.text().unwrap());
    assert!(texts.into_iter().all(|text| text.contains("[DONE]")));
}
