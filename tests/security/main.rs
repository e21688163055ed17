//! A real server under attack, while others use it: nothing is lost, nothing is told, and it goes on.

#[path = "../common/command.rs"]
mod command;

mod floods;
mod malformed;
mod secrets;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A server with the built-in pair; killed when dropped.
struct Hearth {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

/// The models of the tests' configurations.
const MODELS: &str = "[[model]]\nname = \"narrator\"\npath = \"demo:narrator\"\nparallel = 4\nqueue = 1000\n\
                      [[model]]\nname = \"reasoner\"\npath = \"demo:reasoner\"\nparallel = 4\nqueue = 1000\n";

impl Hearth {
    /// With these lines in `[server]`, and what follows the models.
    fn start(server: &str, more: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("models.toml");
        std::fs::write(&config, format!("[server]\nport = 0\n{server}\n{MODELS}\n{more}")).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["serve", "--threads", "1", "--config"])
            .arg(&config)
            .args(arguments)
            .env("HEARTH_CACHE", command::cache())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("the server says where it listens").unwrap();
        let address = line
            .split("http://")
            .nth(1)
            .expect("an address")
            .trim()
            .parse()
            .unwrap();
        let server = Self { child, address, folder };
        let deadline = Instant::now() + Duration::from_secs(120);
        while server.status("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n") != Some(200) {
            assert!(Instant::now() < deadline, "not ready: {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has said on standard error.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// The status of the answer to these bytes; `None` if the connection ends without one.
    fn status(&self, request: &str) -> Option<u16> {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).ok()?;
        status(&mut socket)
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        socket
    }

    /// The whole answer to a request, head and body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut socket = self.connect();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Panics unless the server still does all that it did.
    fn assert_well(&mut self) {
        assert!(
            self.child.try_wait().unwrap().is_none(),
            "the server ended: {}",
            self.log()
        );
        assert_eq!(
            self.status("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            Some(200)
        );
        let answer = self.ask("POST", "/v1/chat/completions", "", &chat("narrator", 4).to_string());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Hearth {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the status of an answer.
fn status(socket: &mut TcpStream) -> Option<u16> {
    let mut head = Vec::new();
    let mut part = [0; 512];
    while head.len() < 12 {
        match socket.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(count) => head.extend_from_slice(&part[..count]),
        }
    }
    std::str::from_utf8(&head[9..12]).ok()?.parse().ok()
}

fn chat(model: &str, tokens: u32) -> Value {
    json!({
        "model": model,
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": "Tell me a story about a dragon."}],
    })
}

/// Clients who stream one answer after the other, and notice if anything is missing.
struct Others {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Others {
    fn start(server: &Hearth, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|number| {
            let (stop, address) = (stop.clone(), server.address);
            let model = ["narrator", "reasoner"][number % 2];
            std::thread::spawn(move || {
                let mut streams = 0;
                while !stop.load(Ordering::Relaxed) {
                    stream(address, model);
                    streams += 1;
                }
                streams
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    /// Waits for the streams that run; returns how many there were. Panics if one was not whole.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let streams = self.threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!(streams > 0);
        streams
    }
}

/// Streams an answer; panics unless it is whole.
fn stream(address: SocketAddr, model: &str) {
    let mut body = chat(model, 48);
    body["stream"] = true.into();
    body["ignore_eos"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let body = body.to_string();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        socket,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for expect in [
        "\"finish_reason\":\"length\"",
        "\"completion_tokens\":48",
        "data: [DONE]",
        "\r\n0\r\n\r\n",
    ] {
        assert!(text.contains(expect), "without {expect}: {text}");
    }
}
