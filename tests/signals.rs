//! How a server ends.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Server, client, raw_post};
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
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

/// A configuration with so many models, all of them the same file, of which a thousand take less than a gigabyte.
fn many_models(folder: &Path, count: usize) -> String {
    let shape = Shape {
        layers: 1,
        width: 32,
        heads: 1,
        kv_heads: 1,
        head: 32,
        rope: 32,
        feed_forward: 32,
        vocabulary: 260,
        ..Shape::preset(Arch::Llama, "tiny").unwrap()
    };
    let path = folder.join("tiny.gguf");
    let mix = Mix::from_name("f16").unwrap();
    Synthetic::new(shape, mix).write(&path, |_, _| ()).unwrap();
    let models = (0..count)
        .map(|number| format!("[[model]]\nname = \"m{number}\"\npath = {path:?}\ncontext = 64\nparallel = 1\n"));
    let config = folder.join("models.toml");
    std::fs::write(&config, format!("[server]\nport = 0\n{}", models.collect::<String>())).unwrap();
    config.display().to_string()
}

/// How a process ended; panics when it has not within `limit`.
fn ended(child: &mut Child, limit: Duration) -> std::process::ExitStatus {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it runs after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_ends_while_two_thousand_models_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = many_models(folder.path(), 2000);
    // Before it answers and after: models are inspected and planned first, and load in the background.
    for answering in [false, true] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["serve", "--config", &config])
            .env("HEARTH_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if answering {
            let line = lines.next().unwrap().unwrap();
            let address = line.split("http://").nth(1).unwrap().trim().to_owned();
            // It names all models, and would wait for who does not read that.
            assert_eq!(lines.by_ref().take(2000).count(), 2000);
            let answer = client().get(format!("http://{address}/readyz")).send().unwrap();
            // Only a fast machine has loaded them all by now.
            assert!([200, 503].contains(&answer.status().as_u16()), "{answer:?}");
        } else {
            std::thread::sleep(Duration::from_millis(200));
        }
        let sent = Command::new("kill")
            .args(["-s", "TERM", &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let status = ended(&mut child, Duration::from_secs(60));
        // Until it answers, the system ends it.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(
            (status.code(), by_signal),
            if answering { (Some(0), None) } else { (None, Some(15)) }
        );
    }
}

/// systemd waits for it (`Type=notify`), knows when it reads its configuration again, and that an end is wanted.
#[cfg(target_os = "linux")]
#[test]
fn systemd_hears_of_the_start_of_reloads_and_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let listener = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut text = [0; 1024];
        let length = listener.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let config = folder.path().join("models.toml");
    let right = "[[model]]\nname = \"m\"\npath = \"demo:narrator\"\nload = \"demand\"\n";
    std::fs::write(&config, right).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["serve", "--port", "0", "--config"])
        .arg(&config)
        .env("HEARTH_LOG", "off")
        .env("HEARTH_CACHE", common::command::cache())
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(hear(), "READY=1");
    let send = |signal: &str| {
        let sent = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    for (text, status) in [
        (right, ""),
        ("[server]\nport = \"x\"\n", "nothing was changed: "),
        (right, ""),
    ] {
        std::fs::write(&config, text).unwrap();
        send("HUP");
        let reloading = hear();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        let ready = hear();
        let told = ready.strip_prefix("READY=1\nSTATUS=").expect(&ready);
        assert!(
            told.starts_with(status) && told.is_empty() == status.is_empty(),
            "{ready}"
        );
    }
    send("TERM");
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(ended(&mut child, Duration::from_secs(60)).code(), Some(0));
}
