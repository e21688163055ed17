//! Clients that leave.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::scripted::{Api, CHAT, SOON, chat, read_until, request};

#[test]
fn who_leaves_is_noticed_soon() {
    let api = Api::start();
    for script in ["pending", "waits", "prefills", "decodes"] {
        for (path, mut body) in [
            (CHAT, chat(script)),
            ("/v1/completions", json!({ "prompt": script })),
            ("/api/v1/generate", json!({ "prompt": script })),
        ] {
            for streams in [false, true] {
                body["stream"] = streams.into();
                body["return_progress"] = true.into();
                let mut socket = api.connect();
                socket.write_all(request(path, &body).as_bytes()).unwrap();
                api.arrived.recv_timeout(Duration::from_secs(10)).unwrap();
                if streams && script != "pending" {
                    let sign = if script == "waits" { "\r\n\r\n" } else { "data: " };
                    read_until(&mut socket, sign);
                }
                assert!(api.left.try_recv().is_err(), "{script}: ended by itself");
                let gone = Instant::now();
                drop(socket);
                let noticed = api.left.recv_timeout(Duration::from_secs(10));
                let noticed = noticed.unwrap_or_else(|_| panic!("{script} at {path}, stream {streams}: never noticed"));
                let took = noticed - gone;
                assert!(took < SOON, "{script} at {path}, stream {streams}: {took:?}");
            }
        }
    }
}

/// A client that pipelines, or is still sending, must be noticed just as well.
#[test]
fn who_leaves_with_more_to_say_is_noticed_soon() {
    let api = Api::start();
    let mut socket = api.connect();
    let two = request(CHAT, &chat("waits")) + &request(CHAT, &chat("say"));
    socket.write_all(two.as_bytes()).unwrap();
    api.arrived.recv_timeout(Duration::from_secs(10)).unwrap();
    let gone = Instant::now();
    drop(socket);
    let noticed = api.left.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(noticed - gone < SOON);
}
