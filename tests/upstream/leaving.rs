//! Clients that leave: the server that computes for them must hear of it.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Server, raw_post};
use crate::scripted::{Scripted, head, put, says};

#[test]
fn who_leaves_closes_the_connection_to_the_server() {
    let (began, begins) = channel();
    let (left, leaves) = channel();
    let (began, left) = (Mutex::new(began), Mutex::new(left));
    let upstream = Scripted::start(move |request, socket| {
        if request.body["messages"][0]["content"] != "wait" {
            head(socket);
            put(socket, &says("Once"));
        }
        began.lock().unwrap().send(()).unwrap();
        // Nothing more is sent: what ends the read is the other side.
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let waited = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        let closed = match socket.read(&mut [0; 64]) {
            Ok(bytes) => bytes == 0,
            Err(error) => !waited(&error),
        };
        left.lock().unwrap().send(closed).unwrap();
    });
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"m\"\nupstream = {{ base_url = \"http://{}/v1\" }}\n",
        upstream.address
    );
    let server = Server::begin(&text, 1, None);
    server.wait_until_ready();
    for (content, streams) in [("hello", true), ("hello", false), ("wait", true)] {
        let body = json!({"messages": [{"role": "user", "content": content}], "stream": streams});
        let socket = raw_post(server.address, "/v1/chat/completions", &body);
        begins.recv_timeout(Duration::from_secs(20)).unwrap();
        if streams && content == "hello" {
            let mut lines = BufReader::new(&socket).lines();
            assert!(lines.any(|line| line.unwrap().contains("Once")));
        }
        let start = Instant::now();
        drop(socket);
        assert!(leaves.recv_timeout(Duration::from_secs(10)).unwrap(), "{content}");
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{content} {streams}: {:?}",
            start.elapsed()
        );
    }
    server.wait_for("hearth_requests_running", "m", 0.0, Duration::from_secs(5));
    assert!((server.metric("hearth_upstream_breaker_state", "m")).abs() < 0.5);
}
