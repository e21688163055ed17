//! A real `hearth serve` on free ports, for black-box tests.

// Each test takes what it needs.
#![allow(dead_code)]

pub mod command;
pub mod sources;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// Serves all models.
    pub address: SocketAddr,
    /// Serve one model each.
    pub own: Vec<SocketAddr>,
    folder: tempfile::TempDir,
}

impl Server {
    /// The built-in pair, each also on a port of its own. `extra` is added to each model's table.
    pub fn start(extra: &str) -> Self {
        let mut text = "[server]\nport = 0\nshutdown_grace = \"2s\"\n".to_owned();
        for (name, role) in [("reasoner", "reasoning"), ("narrator", "narrator")] {
            text += &format!(
                "[[model]]\nname = \"demo-{name}\"\nrole = \"{role}\"\naliases = [\"{name}\"]\npath = \"demo:{name}\"\nport = 0\n{extra}\n"
            );
        }
        Self::configured(&text, 3, None)
    }

    /// A configuration with so many listeners; `limit` is the address space that the process may have, in KiB. Waits until the
    /// models are ready.
    pub fn configured(text: &str, listeners: usize, limit: Option<u64>) -> Self {
        let server = Self::begin(text, listeners, limit);
        server.wait_until_ready();
        server
    }

    pub fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while self.get("/readyz").0 != 200 {
            assert!(Instant::now() < deadline, "the server is not ready after five minutes");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One listener, with these variables, whatever becomes of the models; what it logs is kept.
    pub fn logged(text: &str, variables: &[(&str, std::ffi::OsString)]) -> Self {
        Self::spawn(text, 1, None, variables)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The same as [`Server::configured`], whatever becomes of the models.
    pub fn begin(text: &str, listeners: usize, limit: Option<u64>) -> Self {
        Self::spawn(text, listeners, limit, &[])
    }

    fn spawn(text: &str, listeners: usize, limit: Option<u64>, variables: &[(&str, std::ffi::OsString)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("models.toml");
        std::fs::write(&config, text).unwrap();
        let hearth = env!("CARGO_BIN_EXE_hearth");
        let mut command = match limit {
            None => Command::new(hearth),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -v {limit}; exec \"$0\" \"$@\""), hearth]);
                shell
            }
        };
        let log = match variables {
            [] => Stdio::inherit(),
            _ => std::fs::File::create(folder.path().join("log")).unwrap().into(),
        };
        let mut child = command
            .args(["serve", "--config"])
            .arg(&config)
            .args(["--threads", "2"])
            .stdout(Stdio::piped())
            .stderr(log)
            .env("HEARTH_LOG", "warn,llama-cpp-2=error")
            .env("HEARTH_CACHE", command::cache())
            // Each further arena of glibc's allocator takes 64 MiB of address space, and how many there are is a matter of luck.
            .env("MALLOC_ARENA_MAX", "1")
            .envs(variables.iter().cloned())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = Vec::new();
        while addresses.len() < listeners {
            let line = lines.next().expect("the server says where it listens").unwrap();
            let found = line
                .split("://")
                .nth(1)
                .map(|text| text.trim().parse::<SocketAddr>().unwrap());
            addresses.extend(found);
        }
        Self {
            child,
            address: addresses[0],
            own: addresses[1..].to_vec(),
            folder,
        }
    }

    /// Writes another configuration, which the server has not read yet.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder.path().join("models.toml"), text).unwrap();
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        answer(client().get(format!("http://{}{path}", self.address)).send().unwrap())
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        post(self.address, path, body)
    }

    /// A metric of a model, summed over its other labels.
    pub fn metric(&self, name: &str, model: &str) -> f64 {
        let text = client()
            .get(format!("http://{}/metrics", self.address))
            .send()
            .unwrap()
            .text()
            .unwrap();
        let label = format!("model=\"{model}\"");
        text.lines()
            .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until a metric has a value; returns how long that took.
    pub fn wait_for(&self, name: &str, model: &str, value: f64, limit: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let now = self.metric(name, model);
            if (now - value).abs() < 0.5 {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < limit,
                "{name} of {model} is {now}, not {value}, after {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended; panics when it has not within `limit`.
    pub fn ended(mut self, limit: Duration) -> std::process::ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server runs after {limit:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn terminate(mut self) -> std::process::ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn client() -> reqwest::blocking::Client {
    reqwest::blocking::Client::builder()
        .timeout(Duration::from_secs(120))
        .build()
        .unwrap()
}

pub fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    answer(
        client()
            .post(format!("http://{address}{path}"))
            .body(body)
            .send()
            .unwrap(),
    )
}

fn answer(response: reqwest::blocking::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("status {status}, not JSON: {text}"));
    (status, body)
}

/// All `data:` lines of a streamed answer.
pub fn stream(address: SocketAddr, path: &str, body: &Value) -> Vec<String> {
    let response = client()
        .post(format!("http://{address}{path}"))
        .body(body.to_string())
        .send()
        .unwrap();
    assert_eq!(response.status(), 200);
    let mut lines = Vec::new();
    for line in BufReader::new(response).lines() {
        lines.extend(line.unwrap().strip_prefix("data: ").map(str::to_owned));
    }
    lines
}

/// The text of a streamed chat answer, after a check of its form.
pub fn streamed_text(lines: &[String]) -> String {
    let (done, chunks) = lines.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": null})
    );
    let mut text = String::new();
    for chunk in &chunks[1..] {
        let delta = &chunk["choices"][0]["delta"];
        assert!(delta.get("role").is_none());
        if let Some(content) = delta["content"].as_str() {
            assert!(!content.is_empty());
            text += content;
        }
        assert_eq!(chunk["id"], chunks[0]["id"]);
    }
    assert!(chunks.last().unwrap()["choices"][0]["finish_reason"].is_string());
    text
}

/// Sends a POST over a raw socket and returns it, so that a test can leave whenever it wants.
pub fn raw_post(address: SocketAddr, path: &str, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    socket
}
