//! Reading server-sent events that have names.

use serde_json::Value;

use crate::scripted::Api;

/// The events of a streamed answer: each has its name in its data, too.
pub fn events(api: &Api, path: &str, mut body: Value) -> Vec<Value> {
    body["stream"] = true.into();
    let response = api.send(path, &body);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().unwrap();
    let events = text.strip_suffix("\n\n").expect("ends with an event").split("\n\n");
    events
        .map(|event| {
            let (name, data) = event.split_once('\n').expect("two fields");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect()
}

/// The names of events, in order. How a text is cut into deltas is a matter of time: several in a row are one.
pub fn names(events: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    names.dedup();
    names
}
