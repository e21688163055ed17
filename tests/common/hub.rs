//! A hub on loopback that misbehaves when it is told to.

// Each test takes what it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

/// A request, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// What the hub does.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Files of `owner/repo`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Who does not bring this token is sent away.
    pub token: Option<String>,
    /// Bytes after which the connection is cut, for the next requests for a file, one by one.
    pub cuts: Vec<usize>,
    /// Statuses of the next requests for a file, one by one.
    pub statuses: Vec<u16>,
    /// Lists that are refused as the hub is busy.
    pub busy: u32,
    /// Files come from a second server.
    pub cdn: bool,
    /// Ranges are answered with other bytes than asked for.
    pub wrong_range: bool,
    /// Ranges are ignored.
    pub no_range: bool,
    /// The hub tells wrong checksums.
    pub wrong_sum: bool,
    /// No checksum is told, as for small files.
    pub no_sum: bool,
    /// Bytes come, and then nothing while the connection stays open.
    pub stall: Option<usize>,
    /// Goes into `ETag`.
    pub version: String,
}

pub struct LoopbackHub {
    pub address: SocketAddr,
    pub cdn: SocketAddr,
    pub behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<Mutex<Vec<(bool, Asked)>>>,
}

impl LoopbackHub {
    pub fn start(behaviour: Behaviour) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, cdn] = [&listeners[0], &listeners[1]].map(|listener| listener.local_addr().unwrap());
        let behaviour = Arc::new(Mutex::new(behaviour));
        let asked = Arc::new(Mutex::new(Vec::new()));
        for (listener, is_cdn) in listeners.into_iter().zip([false, true]) {
            let (behaviour, asked) = (behaviour.clone(), asked.clone());
            std::thread::spawn(move || {
                for socket in listener.incoming().flatten() {
                    let (behaviour, asked) = (behaviour.clone(), asked.clone());
                    std::thread::spawn(move || {
                        // Clients leave when they like.
                        let _ = answer(&socket, is_cdn, cdn, &behaviour, &asked);
                    });
                }
            });
        }
        Self {
            address,
            cdn,
            behaviour,
            asked,
        }
    }

    /// Requests for files: whether the second server was asked, and what.
    pub fn asked_for_files(&self) -> Vec<(bool, Asked)> {
        let asked = self.asked.lock().unwrap().clone();
        asked
            .into_iter()
            .filter(|(_, asked)| !asked.path.starts_with("/api/"))
            .collect()
    }

    pub fn all_asked(&self) -> Vec<(bool, Asked)> {
        self.asked.lock().unwrap().clone()
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(socket: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(socket).lines();
    let first = lines.next()?.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Asked { path, headers })
}

fn respond(mut socket: &TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = if headers.contains("content-length") {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    write!(
        socket,
        "HTTP/1.1 {status} X\r\nconnection: close\r\n{length}{headers}\r\n"
    )?;
    socket.write_all(body)
}

fn answer(
    socket: &TcpStream,
    is_cdn: bool,
    cdn: SocketAddr,
    behaviour: &Mutex<Behaviour>,
    asked: &Mutex<Vec<(bool, Asked)>>,
) -> std::io::Result<()> {
    let Some(request) = read(socket) else { return Ok(()) };
    asked.lock().unwrap().push((is_cdn, request.clone()));
    let mut behaviour = behaviour.lock().unwrap();
    if let Some(token) = behaviour.token.as_ref().filter(|_| !is_cdn) {
        let given = request.headers.get("authorization");
        if given != Some(&format!("Bearer {token}")) {
            return respond(socket, 401, "x-error-code: GatedRepo\r\n", b"{}");
        }
    }
    let path = request.path.split('?').next().unwrap_or_default();
    if let Some(rest) = path.strip_prefix("/api/models/") {
        if behaviour.busy > 0 {
            behaviour.busy -= 1;
            return respond(socket, 503, "", b"busy");
        }
        return match rest {
            "owner/repo/tree/main" => list(socket, &behaviour, request.path.contains("cursor=")),
            "owner/repo/tree/v2" => respond(socket, 404, "x-error-code: RevisionNotFound\r\n", b"{}"),
            _ => respond(socket, 404, "x-error-code: RepoNotFound\r\n", b"{}"),
        };
    }
    let name = path
        .strip_prefix("/owner/repo/resolve/main/")
        .or_else(|| path.strip_prefix("/files/"));
    let Some(bytes) = name.and_then(|name| behaviour.files.get(name)).cloned() else {
        return respond(socket, 404, "x-error-code: EntryNotFound\r\n", b"Not found");
    };
    if !is_cdn && behaviour.cdn {
        let sum = sha256(&bytes);
        let headers = format!("location: http://{cdn}{path}?signature=hush\r\nx-linked-etag: \"{sum}\"\r\n");
        return respond(socket, 302, &headers, b"");
    }
    if !behaviour.statuses.is_empty() {
        let status = behaviour.statuses.remove(0);
        return respond(socket, status, "retry-after: 0\r\n", b"later");
    }
    let cut = if behaviour.cuts.is_empty() {
        None
    } else {
        Some(behaviour.cuts.remove(0))
    };
    let copy = behaviour.clone();
    // Others need not wait while this one stalls.
    drop(behaviour);
    send(socket, &request, &copy, &bytes, cut)
}

fn send(
    mut socket: &TcpStream,
    request: &Asked,
    behaviour: &Behaviour,
    bytes: &[u8],
    cut: Option<usize>,
) -> std::io::Result<()> {
    let etag = format!("\"{}{}\"", &sha256(bytes)[..8], behaviour.version);
    let asked = request.headers.get("range").and_then(|range| {
        let same = request.headers.get("if-range").is_none_or(|of| *of == etag);
        let start = range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()?;
        (same && !behaviour.no_range).then_some(start)
    });
    let (status, start, mut headers) = match asked {
        None => (200, 0, String::new()),
        Some(start) if start >= bytes.len() => return respond(socket, 416, "", b""),
        Some(start) => {
            let start = if behaviour.wrong_range { start / 2 } else { start };
            let range = format!("content-range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            (206, start, range)
        }
    };
    let body = &bytes[start..];
    headers += &format!("etag: {etag}\r\ncontent-length: {}\r\n", body.len());
    match (cut, behaviour.stall) {
        (Some(cut), _) => respond(socket, status, &headers, &body[..cut.min(body.len())]),
        (None, Some(stall)) => {
            respond(socket, status, &headers, &body[..stall.min(body.len())])?;
            socket.flush()?;
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        }
        (None, None) => respond(socket, status, &headers, body),
    }
}

/// The list of files, in two pages. As on a mirror, the link to the second one names another host.
fn list(socket: &TcpStream, behaviour: &Behaviour, second: bool) -> std::io::Result<()> {
    let entry = |(path, bytes): (&String, &Vec<u8>)| {
        let mut sum = sha256(bytes);
        if behaviour.wrong_sum {
            sum = "0".repeat(64);
        }
        if behaviour.no_sum {
            return json!({"type": "file", "path": path, "size": bytes.len(), "oid": "abc"});
        }
        json!({"type": "file", "path": path, "size": 134, "oid": "abc", "lfs": {"oid": sum, "size": bytes.len(), "pointerSize": 134}})
    };
    let entries: Vec<_> = behaviour.files.iter().map(entry).collect();
    let (first, rest) = entries.split_at(entries.len().min(2));
    let mut headers = "content-type: application/json\r\n".to_owned();
    let page = if second {
        json!(rest)
    } else {
        headers +=
            "link: <https://hub.invalid/api/models/owner/repo/tree/main?recursive=true&cursor=x>; rel=\"next\"\r\n";
        let others = [
            json!({"type": "directory", "path": "folder", "size": 0, "oid": "d"}),
            json!({"type": "file", "path": "../outside.gguf", "size": 1, "oid": "x"}),
        ];
        json!([first, &others].concat())
    };
    respond(socket, 200, &headers, page.to_string().as_bytes())
}
