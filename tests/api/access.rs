//! Web pages of others, and names that are not this server's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hearth::config::ServerConfig;
use hearth::engine::Health;

use crate::scripted::{Api, CHAT, chat};

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
    let response = crate::scripted::client().get(metrics).send().unwrap();
    assert_eq!(response.status(), status);
    assert!(response.text().unwrap().contains("status=\"403\""));
}

#[test]
fn the_configuration_allows_more() {
    let config = ServerConfig {
        allowed_hosts: vec!["box.lan".into()],
        allowed_origins: vec!["https://chat.example".into()],
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
        check(address, "Host: evil.lan\r\n", 403, "host_not_allowed");
        check(
            address,
            "Host: localhost\r\nOrigin: https://chat.example.evil.com\r\n",
            403,
            "origin_not_allowed",
        );
    }
}
