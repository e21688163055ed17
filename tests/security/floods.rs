//! Too slow, too much, too many.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{Hearth, Others, chat, status};

/// Reads until the end; returns what there was, and how long it took.
fn to_the_end(mut socket: TcpStream) -> (String, Duration) {
    let started = Instant::now();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
}

#[test]
fn slow_clients_are_sent_away_while_others_stream() {
    let mut server = Hearth::start("request_timeout = \"2s\"\nkeep_alive = \"2s\"", "", &[], &[]);
    let others = Others::start(&server, 4);
    // Half a head, and nothing more; a head of which a byte comes now and then; a body that does the same; no request at all.
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut socket = server.connect();
            socket
                .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-")
                .unwrap();
            socket
        })
        .collect();
    let idle: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    let trickles: Vec<_> = (0..20)
        .map(|number| {
            let mut socket = server.connect();
            let head = match number % 2 {
                0 => "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
                _ => "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n{",
            };
            std::thread::spawn(move || {
                let started = Instant::now();
                let _ = socket.write_all(head.as_bytes());
                while socket.write_all(b" ").is_ok() && started.elapsed() < Duration::from_secs(12) {
                    std::thread::sleep(Duration::from_millis(200));
                }
                started.elapsed()
            })
        })
        .collect();
    for socket in silent {
        let (answer, took) = to_the_end(socket);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    for socket in idle {
        let (answer, took) = to_the_end(socket);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    for trickle in trickles {
        let took = trickle.join().unwrap();
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    others.finish();
    server.assert_well();
}

#[test]
fn large_and_deep_bodies_are_refused_while_others_stream() {
    let mut server = Hearth::start("body_limit = \"1MiB\"", "", &[], &[]);
    let others = Others::start(&server, 4);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        // Refused by its announcement.
        let huge = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n";
        assert_eq!(server.status(huge), Some(413));
        // Not announced.
        let mut socket = server.connect();
        let _ = socket
            .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        let part = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        for _ in 0..40 {
            if socket.write_all(part.as_bytes()).is_err() {
                break;
            }
        }
        // The connection may be gone before the answer is read.
        assert!(matches!(status(&mut socket), Some(413) | None));
        for deep in [
            "[".repeat(500_000),
            "{\"a\":".repeat(150_000),
            format!("{{\"messages\": {}", "[".repeat(900_000)),
        ] {
            let answer = server.ask("POST", "/v1/chat/completions", "", &deep);
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        let many = format!("{{\"messages\": [{}]}}", vec!["{}"; 200_000].join(","));
        let answer = server.ask("POST", "/v1/chat/completions", "", &many);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        // As headers.
        let line = format!("X-Much: {}\r\n", "x".repeat(300_000));
        assert!(matches!(
            server.status(&format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{line}\r\n")),
            Some(400 | 431) | None
        ));
        let lines = "X-Many: x\r\n".repeat(500);
        assert!(matches!(
            server.status(&format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")),
            Some(400 | 431) | None
        ));
        let path = format!("/{}", "x".repeat(200_000));
        assert!(matches!(
            server.status(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")),
            Some(400 | 404 | 414 | 431) | None
        ));
    }
    others.finish();
    server.assert_well();
}

#[test]
fn many_sockets_leave_room_for_others() {
    let mut server = Hearth::start("", "", &[], &[]);
    let others = Others::start(&server, 4);
    // This process must hold them, too.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map(|most| most.min(10_000)).or(limit.current);
    let _ = setrlimit(Resource::Nofile, limit);
    let most = getrlimit(Resource::Nofile).current.unwrap_or(10_000);
    let count = usize::try_from(most / 3).unwrap().min(3000);
    let sockets: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
    let answer = server.ask("POST", "/v1/chat/completions", "", &chat("narrator", 8).to_string());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Half of them ask at once, and leave.
    for mut socket in sockets.into_iter().step_by(2) {
        let body = chat("reasoner", 100).to_string();
        let _ = write!(
            socket,
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    others.finish();
    server.assert_well();
}
