//! A server that does what a test wants, byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counted from 0.
    pub number: usize,
    pub path: String,
    /// The value of `Authorization`.
    pub key: Option<String>,
    pub body: Value,
}

/// Listens until the process ends.
pub struct Scripted {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// The context that it tells of its model.
pub const CONTEXT: u32 = 777;

impl Scripted {
    /// Answers POST with `answer`, which writes to the socket; the connection is closed behind it.
    pub fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, count, answer) = (requests.clone(), Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (seen, count, answer) = (seen.clone(), count.clone(), answer.clone());
                let mut socket = socket.unwrap();
                std::thread::spawn(move || {
                    let Some(mut request) = read(&socket) else { return };
                    if request.path.ends_with("/models") {
                        let list = json!({"object": "list", "data": [{"id": "there", "max_model_len": CONTEXT}]});
                        whole(&mut socket, "200 OK", "application/json", "", &list.to_string());
                        return;
                    }
                    request.number = count.fetch_add(1, Ordering::SeqCst);
                    seen.lock().unwrap().push(request.clone());
                    answer(&request, &mut socket);
                });
            }
        });
        Self { address, requests }
    }

    /// Streams these events, whatever it is asked.
    pub fn streaming(events: &[Value]) -> Self {
        let events = events.to_vec();
        Self::start(move |_, socket| {
            head(socket);
            for event in &events {
                put(socket, event);
            }
            done(socket);
        })
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(socket: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut key, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => key = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        number: 0,
        path,
        key,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

/// A whole response; `headers` end with a line break each.
pub fn whole(socket: &mut TcpStream, status: &str, kind: &str, headers: &str, body: &str) {
    let _ = write!(
        socket,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
        body.len()
    );
}

/// An error in OpenAI's form.
pub fn refuse(socket: &mut TcpStream, status: &str, headers: &str, message: &str) {
    let body = json!({"error": {"message": message, "type": "x", "param": null, "code": null}});
    whole(socket, status, "application/json", headers, &body.to_string());
}

/// The head of a stream.
pub fn head(socket: &mut TcpStream) {
    let _ = socket
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n");
}

pub fn put(socket: &mut TcpStream, event: &Value) {
    let _ = write!(socket, "data: {event}\n\n");
    let _ = socket.flush();
}

pub fn done(socket: &mut TcpStream) {
    let _ = socket.write_all(b"data: [DONE]\n\n");
}

/// A chunk with more text.
pub fn says(text: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
}

/// The chunk that ends a choice.
pub fn ends() -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
}
