//! How a server ends.
#![cfg(unix)]

mod common;

use std::time::{Duration, Instant};

use common::{Server, raw_post};
use serde_json::json;

/// A server that has work for a minute, and would wait an hour for it.
fn busy() -> (Server, Vec<std::net::TcpStream>) {
    let text = "[server]\nport = 0\nshutdown_grace = \"1h\"\n[[model]]\nname = \"n\"\npath = \"demo:narrator\"\nparallel = 1\n";
    let server = Server::configured(text, 1, None);
    let body = json!({"prompt": "Once upon a time", "max_tokens": 3000, "ignore_eos": true, "stream": true});
    let clients = (0..40)
        .map(|_| raw_post(server.address, "/v1/completions", &body))
        .collect();
    server.wait_for("hearth_requests_running", "n", 1.0, Duration::from_secs(60));
    (server, clients)
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let (server, _clients) = busy();
        server.signal(name);
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.get("/readyz").0 == 200 {
            assert!(Instant::now() < deadline, "the first {name} was not heard");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Running completions go on until the second one.
        assert!(server.metric("hearth_requests_running", "n") > 0.5);
        server.signal(name);
        assert_eq!(server.ended(Duration::from_secs(20)).code(), Some(code));
    }
}

#[test]
fn an_idle_server_ends_with_success() {
    let server = Server::configured(
        "[server]\nport = 0\n[[model]]\nname = \"n\"\npath = \"demo:narrator\"\n",
        1,
        None,
    );
    server.signal("TERM");
    assert_eq!(server.ended(Duration::from_secs(30)).code(), Some(0));
}
