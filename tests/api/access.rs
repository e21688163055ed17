//! Web pages of others, and names that are not this server's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hearth::config::ServerConfig;
use hearth::engine::Health;

use reqwest::Method;
use reqwest::blocking::Response;

use crate::scripted::{Api, CHAT, chat, client};

/// The answer to a request with these headers, whole.
fn ask(address: SocketAddr, version: &str, headers: &str) -> String {
    let body = chat("say").to_string();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        socket,
        "POST {CHAT} {version}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn check(address: SocketAddr, headers: &str, status: u16, expect: &str) {
    let answer = ask(address, "HTTP/1.1", headers);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(expect),
        "{headers}\n{answer}"
    );
    assert!(answer.contains("x-request-id: "), "{answer}");
}

#[test]
fn pages_of_others_and_foreign_names_are_refused() {
    let api = Api::start();
    for address in [api.address, api.own] {
        let port = address.port();
        let foreign = "origin_not_allowed";
        for own in ["localhost", "127.0.0.1", "[::1]"] {
            let host = format!("Host: {own}:{port}\r\n");
            check(address, &host, 200, "choices");
            check(
                address,
                &format!("{host}Origin: http://{own}:{port}\r\n"),
                200,
                "choices",
            );
            for origin in ["http://evil.com", "http://localhost.evil.com", "null"] {
                check(address, &format!("{host}Origin: {origin}\r\n"), 403, foreign);
            }
            // Another server of this machine is not this one.
            check(address, &format!("{host}Origin: http://{own}:1\r\n"), 403, foreign);
        }
        for host in ["evil.com", "localhost.evil.com", "evil.com:8080", "192.168.0.1"] {
            let headers = format!("Host: {host}\r\nOrigin: http://{host}\r\n");
            check(address, &headers, 403, "host_not_allowed");
            check(address, &format!("Host: {host}\r\n"), 403, "`allowed_hosts`");
        }
        // Old clients name no host.
        let answer = ask(address, "HTTP/1.0", "");
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    }
    let (status, metrics) = (200, api.url("/metrics"));
    let response = client().get(metrics).send().unwrap();
    assert_eq!(response.status(), status);
    assert!(response.text().unwrap().contains("status=\"403\""));
}

#[test]
fn the_configuration_allows_more() {
    let config = ServerConfig {
        allowed_hosts: vec!["box.lan".into()],
        cors: vec!["https://chat.example".into(), "localhost".into()],
        ..ServerConfig::default()
    };
    let api = Api::configured(Health::Ready, config);
    for address in [api.address, api.own] {
        check(address, "Host: box.lan:99\r\n", 200, "choices");
        check(
            address,
            "Host: localhost\r\nOrigin: https://chat.example\r\n",
            200,
            "choices",
        );
        check(
            address,
            "Host: localhost\r\nOrigin: http://127.0.0.1:3000\r\n",
            200,
            "choices",
        );
        check(address, "Host: evil.lan\r\n", 403, "host_not_allowed");
        for origin in ["https://chat.example.evil.com", "http://localhost.evil.com", "null"] {
            let headers = format!("Host: localhost\r\nOrigin: {origin}\r\n");
            check(address, &headers, 403, "origin_not_allowed");
        }
    }
}

/// What a browser sends before it lets a page use a client such as OpenAI's.
fn preflight(api: &Api, path: &str, origin: &str) -> Response {
    client()
        .request(Method::OPTIONS, api.url(path))
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", ASKED)
        .header("Access-Control-Request-Private-Network", "true")
        .send()
        .unwrap()
}

const ASKED: &str = "authorization,content-type,x-api-key,x-stainless-os,anthropic-version";

fn header(response: &Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().unwrap().to_owned())
}

fn shared_with(cors: &[&str]) -> Api {
    let config = ServerConfig {
        cors: cors.iter().map(|origin| (*origin).to_owned()).collect(),
        ..ServerConfig::default()
    };
    Api::configured(Health::Ready, config)
}

#[test]
fn browsers_are_told_what_pages_may_do() {
    let api = shared_with(&["https://chat.example", "localhost"]);
    for origin in ["https://chat.example", "http://localhost:5173", "http://[::1]:99"] {
        // Before anything is sent, so without a key; also where there is nothing.
        for path in [CHAT, "/v1/models", "/nowhere"] {
            let answer = preflight(&api, path, origin);
            assert_eq!(answer.status(), 204, "{origin}");
            assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some(origin));
            assert_eq!(header(&answer, "access-control-allow-headers").as_deref(), Some(ASKED));
            assert!(
                header(&answer, "access-control-allow-methods")
                    .unwrap()
                    .contains("POST")
            );
            assert_eq!(header(&answer, "access-control-allow-private-network").unwrap(), "true");
            assert!(header(&answer, "vary").unwrap().contains("origin"));
            assert_eq!(header(&answer, "access-control-allow-credentials"), None);
        }
        // Whole answers, streams and errors can be read.
        let mut streamed = chat("say");
        streamed["stream"] = true.into();
        for (path, body, status) in [
            (CHAT, chat("say"), 200),
            (CHAT, streamed, 200),
            (CHAT, chat("full"), 429),
            (CHAT, chat("panics"), 500),
            ("/nowhere", chat("say"), 404),
        ] {
            let request = client().post(api.url(path)).header("Origin", origin);
            let answer = request.body(body.to_string()).send().unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some(origin));
            let exposed = header(&answer, "access-control-expose-headers").unwrap();
            assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"));
            assert!(header(&answer, "vary").unwrap().contains("origin"));
        }
    }
    for origin in ["http://localhost.evil.com", "http://chat.example", "null"] {
        let answer = preflight(&api, CHAT, origin);
        assert_eq!(answer.status(), 403, "{origin}");
        assert_eq!(header(&answer, "access-control-allow-origin"), None);
    }
    // Caches must not give a page what a program was answered.
    let answer = client().get(api.url("/v1/models")).send().unwrap();
    assert!(header(&answer, "vary").unwrap().contains("origin"));
    assert_eq!(header(&answer, "access-control-allow-origin"), None);
}

#[test]
fn without_cors_no_page_of_others_reads_anything() {
    let api = Api::start();
    let answer = preflight(&api, CHAT, "http://localhost:3000");
    assert_eq!(answer.status(), 403);
    // A bare machine may not know the name.
    let own = format!("localhost:{}", api.address.port());
    let asked = client().get(api.url("/v1/models")).header("Host", &own);
    let answer = asked.header("Origin", format!("http://{own}")).send().unwrap();
    assert_eq!(answer.status(), 200);
    for name in ["access-control-allow-origin", "vary"] {
        assert_eq!(header(&answer, name), None);
    }
}

#[test]
fn a_star_is_for_every_page() {
    let api = shared_with(&["*"]);
    for origin in ["http://evil.com", "null", "tauri://localhost"] {
        let answer = preflight(&api, CHAT, origin);
        assert_eq!(answer.status(), 204);
        assert_eq!(header(&answer, "access-control-allow-origin").unwrap(), "*");
    }
    // But not for names that are not this server's.
    let answer = ask(api.address, "HTTP/1.1", "Host: evil.com\r\nOrigin: http://evil.com\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}
