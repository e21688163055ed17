//! TLS, with certificates that are made here.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hearth::api::Tls;
use hearth::config::ServerConfig;
use hearth::engine::Health;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use reqwest::Version;
use reqwest::blocking::{Client, ClientBuilder};

use crate::scripted::{Api, CHAT, chat};

/// An authority of our own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes a certificate for this machine, and its key.
    fn certify(&self, folder: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join("certificate.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    }

    fn client(&self, more: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
        let root = reqwest::Certificate::from_der(self.0.der()).unwrap();
        // Bare systems have no file of names, and so not this one.
        let builder = Client::builder()
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .resolve("localhost", SocketAddr::from(([127, 0, 0, 1], 0)));
        more(builder.tls_certs_only([root])).build().unwrap()
    }
}

fn config(folder: &Path) -> ServerConfig {
    ServerConfig {
        tls_certificate: Some(folder.join("certificate.pem")),
        tls_key: Some(folder.join("key.pem")),
        ..ServerConfig::default()
    }
}

#[test]
fn both_versions_of_http_are_spoken_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    authority.certify(folder.path());
    let api = Api::configured(Health::Ready, config(folder.path()));
    for (client, version) in [
        (authority.client(|client| client), Version::HTTP_2),
        (authority.client(ClientBuilder::http1_only), Version::HTTP_11),
    ] {
        for address in [api.address, api.own] {
            let url = |path: &str| format!("https://localhost:{}{path}", address.port());
            let answer = client.get(url("/livez")).send().unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
            let mut body = chat("say");
            body["stream"] = true.into();
            let answer = client.post(url(CHAT)).body(body.to_string()).send().unwrap();
            assert_eq!(answer.status(), 200);
            let text = answer.text().unwrap();
            assert!(
                text.ends_with("data: [DONE]\n\n") && text.contains("finish_reason"),
                "{text}"
            );
            // Who the page belongs to is checked here too: HTTP/2 has no `Host`.
            let foreign = client
                .get(url("/v1/models"))
                .header("Origin", "https://evil.example")
                .send()
                .unwrap();
            assert_eq!(foreign.status(), 403);
            let own = client
                .get(url("/v1/models"))
                .header("Origin", url("").as_str())
                .send()
                .unwrap();
            assert_eq!(own.status(), 200);
        }
    }
}

#[test]
fn what_is_no_tls_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    authority.certify(folder.path());
    let api = Api::configured(Health::Ready, config(folder.path()));
    for bytes in [
        &b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff\x01",
        &[0; 1000],
    ] {
        let mut socket = api.connect();
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    let url = format!("https://localhost:{}/livez", api.address.port());
    // An authority that nobody knows here.
    assert!(
        Authority::new("theirs")
            .client(|client| client)
            .get(&url)
            .send()
            .is_err()
    );
    assert_eq!(
        authority.client(|client| client).get(&url).send().unwrap().status(),
        200
    );
}

#[test]
fn certificates_are_renewed_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let old = Authority::new("old");
    old.certify(folder.path());
    let api = Api::configured(Health::Ready, config(folder.path()));
    let tls = api.tls.clone().unwrap();
    let url = format!("https://localhost:{}/livez", api.address.port());
    let kept = old.client(|client| client);
    assert_eq!(kept.get(&url).send().unwrap().status(), 200);
    assert!(!tls.renew().unwrap());
    // Times of files are not exact everywhere.
    std::thread::sleep(Duration::from_millis(50));
    std::fs::write(folder.path().join("certificate.pem"), "half written").unwrap();
    assert!(tls.renew().is_err());
    assert!(old.client(|client| client).get(&url).send().is_ok());
    std::thread::sleep(Duration::from_millis(50));
    let new = Authority::new("new");
    new.certify(folder.path());
    assert!(tls.renew().unwrap());
    assert_eq!(new.client(|client| client).get(&url).send().unwrap().status(), 200);
    assert!(old.client(|client| client).get(&url).send().is_err());
    // Who is connected stays so.
    assert_eq!(kept.get(&url).send().unwrap().status(), 200);
}

#[test]
fn files_that_cannot_be_used_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    Authority::new("ours").certify(folder.path());
    std::fs::rename(path("key.pem"), path("other.pem")).unwrap();
    Authority::new("ours").certify(folder.path());
    std::fs::write(path("empty.pem"), "").unwrap();
    for (certificate, key, expect) in [
        ("certificate.pem", "other.pem", "cannot be used together"),
        ("empty.pem", "key.pem", "there is no certificate"),
        ("certificate.pem", "empty.pem", "there is no private key"),
        ("certificate.pem", "certificate.pem", "there is no private key"),
        ("key.pem", "key.pem", "there is no certificate"),
        ("nothing.pem", "key.pem", "cannot read"),
    ] {
        let error = Tls::open(&path(certificate), &path(key)).err().expect(certificate);
        let text = format!("{error:#}");
        assert!(text.contains(expect), "{text}");
    }
}
