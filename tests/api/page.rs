//! The page at `/` and its files. What the page does is tested in a browser: `tests/page`.

use std::collections::BTreeSet;

use hearth::config::ServerConfig;
use hearth::engine::Health;
use reqwest::blocking::Response;
use sha2::{Digest, Sha256};

use crate::common::sources::{Source, files_below};
use crate::scripted::{Api, client};

/// What Chromium asks for when somebody types an address.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

fn get(api: &Api, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = client().get(api.url(path));
    let request = headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The files that are served.
fn files() -> Vec<Source> {
    let files = files_below("assets/page", |path| !path.ends_with("README.md"));
    assert!(files.len() > 20);
    files
}

/// Its path below `/`.
fn served_at(file: &Source) -> String {
    file.path.replace("assets/page/", "/page/")
}

#[test]
fn browsers_get_the_page_and_programs_where_to_go_on() {
    let api = Api::start();
    let page = get(&api, "/", &[("accept", BROWSER)]);
    assert_eq!(page.status(), 200);
    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
    assert_eq!(header(&page, "vary"), "accept");
    let tag = header(&page, "etag").to_owned();
    assert!(page.text().unwrap().starts_with("<!doctype html>"));
    // curl, SDKs, and whoever says nothing.
    for accept in ["*/*", "application/json", ""] {
        let answer = get(&api, "/", &[("accept", accept)]);
        assert_eq!(header(&answer, "content-type"), "application/json", "{accept}");
        let answer: serde_json::Value = answer.json().unwrap();
        assert_eq!(answer["name"], "hearth");
        for next in ["models", "docs", "openapi"] {
            assert_eq!(get(&api, answer[next].as_str().unwrap(), &[]).status(), 200, "{next}");
        }
    }
    let same = get(&api, "/", &[("accept", BROWSER), ("if-none-match", &tag)]);
    assert_eq!(same.status(), 304);
    assert_eq!(same.text().unwrap(), "");
    let other = get(&api, "/", &[("accept", BROWSER), ("if-none-match", "\"other\"")]);
    assert_eq!(other.status(), 200);
    let head = client().head(api.url("/")).header("accept", BROWSER).send().unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "etag")), (200, tag.as_str()));
    assert_eq!(client().post(api.url("/")).send().unwrap().status(), 405);
}

#[test]
fn every_file_is_served_as_what_it_is() {
    let api = Api::start();
    for file in files() {
        let response = get(&api, &served_at(&file), &[]);
        assert_eq!(response.status(), 200, "{}: add it to src/api/page/files.rs", file.path);
        let expected = match file.path.rsplit('.').next().unwrap() {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        };
        assert_eq!(header(&response, "content-type"), expected, "{}", file.path);
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "cache-control"), "no-cache");
        let tag = header(&response, "etag").to_owned();
        assert_eq!(response.text().unwrap(), file.text, "{}", file.path);
        let same = get(&api, &served_at(&file), &[("if-none-match", &tag)]);
        assert_eq!(same.status(), 304, "{}", file.path);
    }
    for path in [
        "/page/",
        "/page/nothing.js",
        "/page/vendor/README.md",
        "/page/..%2f..%2fCargo.toml",
        "/page/js",
    ] {
        assert_eq!(get(&api, path, &[]).status(), 404, "{path}");
    }
}

#[test]
fn no_script_of_others_can_run_in_the_page() {
    let api = Api::start();
    for path in ["/", "/page/index.html", "/page/js/main.js", "/page/icon.svg"] {
        let response = get(&api, path, &[("accept", BROWSER)]);
        let policy = header(&response, "content-security-policy");
        let directives: BTreeSet<&str> = policy.split(';').map(str::trim).collect();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(directives.contains(directive), "{path}: {directive} is not in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(header(&response, "referrer-policy"), "no-referrer");
    }
}

/// What a file loads, as it is written there.
fn references(file: &Source) -> Vec<&str> {
    let quoted = |before: &'static str| {
        let parts = file.text.split(before).skip(1);
        parts.filter_map(move |rest| {
            let quote = rest.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
            rest[1..].split(quote).next()
        })
    };
    match file.path.rsplit('.').next().unwrap() {
        "html" => quoted("src=").chain(quoted("href=")).collect(),
        "js" => quoted(" from ")
            .chain(quoted("import("))
            .chain(quoted("import "))
            .collect(),
        "css" => {
            let urls = file
                .text
                .split("url(")
                .skip(1)
                .filter_map(|rest| rest.split(')').next());
            urls.chain(quoted("@import ")).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let api = Api::start();
    let mut count = 0;
    for file in files().iter().filter(|file| !file.path.contains("/vendor/")) {
        // SVG's own name is an address.
        let text = file.text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{}", file.path);
        // The page is at `/`, and modules beside one another.
        let base = if file.path.ends_with(".html") {
            "/".to_owned()
        } else {
            served_at(file)
        };
        let base = reqwest::Url::parse(&api.url(&base)).unwrap();
        for reference in references(file) {
            let url = base.join(reference).unwrap();
            assert_eq!(url.origin(), base.origin(), "{}: {reference}", file.path);
            assert_eq!(get(&api, url.path(), &[]).status(), 200, "{}: {reference}", file.path);
            count += 1;
        }
    }
    assert!(count > 80, "{count} references were found");
    // Vendored libraries import nothing at all.
    for file in files()
        .iter()
        .filter(|file| file.path.ends_with(".js") && file.path.contains("/vendor/"))
    {
        let statements = file.text.split([';', '\n', '}']);
        let imports: Vec<_> = statements
            .filter(|statement| {
                let statement = statement.trim_start();
                ["import ", "import{", "import\"", "import*"]
                    .iter()
                    .any(|word| statement.starts_with(word))
            })
            .collect();
        assert!(imports.is_empty(), "{}: {imports:?}", file.path);
    }
}

#[test]
fn the_markup_has_no_script_of_its_own() {
    let files = files();
    let html = &files
        .iter()
        .find(|file| file.path.ends_with("index.html"))
        .unwrap()
        .text;
    for script in html.split("<script").skip(1) {
        let (attributes, rest) = script.split_once('>').unwrap();
        assert!(
            attributes.contains("src=\"page/") && rest.starts_with("</script>"),
            "{script}"
        );
    }
    assert!(
        !html.contains("<style") && !html.contains(" style=") && !html.contains(" on"),
        "{html}"
    );
}

#[test]
fn vendored_libraries_are_as_they_were_published() {
    let readme = files_below("assets/page/vendor", |path| path.ends_with("README.md"));
    let libraries = files();
    let libraries = libraries
        .iter()
        .filter(|file| file.path.contains("/vendor/") && file.path.ends_with(".js"));
    let mut count = 0;
    for file in libraries {
        let name = file.path.rsplit('/').next().unwrap();
        let row = readme[0].text.lines().find(|line| line.contains(&format!("`{name}`")));
        let digest = Sha256::digest(file.text.as_bytes());
        let sum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(row.is_some_and(|row| row.contains(&sum)), "{name} has the sum {sum}");
        count += 1;
    }
    assert_eq!(count, 4);
}

/// The page's own requests name its origin; by whatever name the server is asked, that is not a foreign one.
#[test]
fn the_page_may_use_its_own_server() {
    let api = Api::start();
    let own = format!("http://{}", api.address);
    for path in ["/", "/page/js/main.js", "/v1/models", "/api/v1/memory"] {
        assert_eq!(get(&api, path, &[("origin", &own)]).status(), 200, "{path}");
        let foreign = get(&api, path, &[("origin", "http://evil.example")]);
        assert_eq!(foreign.status(), 403, "{path}");
        let rebound = get(&api, path, &[("host", "evil.example")]);
        assert_eq!(rebound.status(), 403, "{path}");
    }
    let open = Api::configured(
        Health::Ready,
        ServerConfig {
            allowed_hosts: vec!["*".to_owned()],
            ..ServerConfig::default()
        },
    );
    for path in ["/", "/page/js/main.js", "/v1/models"] {
        let from_the_network = [("host", "box.lan:8080"), ("origin", "http://box.lan:8080")];
        assert_eq!(get(&open, path, &from_the_network).status(), 200, "{path}");
    }
}
