//! Vectors of texts that another server makes.

use serde_json::{Value, json};

use crate::common::Server;
use crate::faults::{KEY, before};
use crate::scripted::{Scripted, refuse, whole};

#[test]
fn they_are_those_of_the_server() {
    let direct = Server::configured(
        "[server]\nport = 0\n[[model]]\nname = \"m\"\npath = \"demo:narrator\"\nembeddings = true\n",
        1,
        None,
    );
    let front = format!(
        "[server]\nport = 0\n[[model]]\nname = \"m\"\nupstream = {{ base_url = \"http://{}/v1\" }}\n",
        direct.address
    );
    let front = Server::configured(&front, 1, None);
    for input in [json!("Hello"), json!(["Hello", "Goodbye"]), json!([[1, 2], [3]])] {
        let body = json!({"model": "m", "input": input});
        let (status, expect) = direct.post("/v1/embeddings", &body);
        assert_eq!(status, 200, "{expect}");
        let (status, mut answer) = front.post("/v1/embeddings", &body);
        assert_eq!(status, 200, "{answer}");
        // They are normalised twice, so the last bits may differ.
        let numbers = |answer: &mut Value| -> Vec<f64> {
            let data = answer["data"].as_array_mut().unwrap();
            let vectors = data.iter_mut().map(|item| item["embedding"].take());
            let numbers = vectors.flat_map(|vector| serde_json::from_value::<Vec<f64>>(vector).unwrap());
            numbers.collect()
        };
        let mut expect = expect;
        let (there, here) = (numbers(&mut expect), numbers(&mut answer));
        assert_eq!(there.len(), here.len());
        assert!(there.iter().zip(&here).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(expect, answer);
    }
    // What the server says is wrong is told.
    let (status, answer) = front.post("/v1/embeddings", &json!({"model": "m", "input": [[1_000_000_000]]}));
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("input")), "{answer}");
}

#[test]
fn what_is_no_vector_is_an_error() {
    let upstream = Scripted::start(|request, socket| {
        assert_eq!(request.path, "/v1/embeddings");
        assert_eq!(request.body["model"], "there");
        let answer = json!({"data": [{"index": 0, "embedding": [3.0, 4.0]}], "usage": {"prompt_tokens": 5}});
        let answer = answer.to_string();
        match request.body["input"][0].as_str().unwrap_or_default() {
            // The first time it fails, the second it does not.
            "again" if request.number == 0 => refuse(socket, "500 Internal Server Error", "", "I died"),
            "page" => whole(socket, "200 OK", "text/html", "", "<html>"),
            "refused" => refuse(
                socket,
                "401 Unauthorized",
                "",
                &format!("Incorrect API key provided: {KEY}"),
            ),
            _ => whole(socket, "200 OK", "application/json", "", &answer),
        }
    });
    let server = before(&upstream, "");
    let ask = |input: Value| server.post("/v1/embeddings", &json!({"model": "m", "input": input}));
    let (status, answer) = ask(json!("again"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["data"][0]["embedding"], json!([0.6, 0.8]));
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    assert_eq!(upstream.requests()[0].key, Some(format!("Bearer {KEY}")));
    for (input, says) in [
        (json!("page"), "text/html"),
        (json!("refused"), "api_key_env"),
        (json!(["one", "two"]), "1 vectors for 2 texts"),
    ] {
        let (status, answer) = ask(input);
        assert_eq!(status, 502, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says) && !message.contains(KEY), "{answer}");
    }
    assert!((server.metric("hearth_upstream_requests_total", "m") - 5.0).abs() < 0.5);
}
