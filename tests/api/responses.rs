//! OpenAI's Responses.

use serde_json::{Value, json};

use crate::events::{events, names};
use crate::scripted::{Api, TEXT, client};

const RESPONSES: &str = "/v1/responses";

#[test]
fn whole_responses_are_what_openai_sends() {
    let api = Api::start();
    let (status, mut answer) = api.post(RESPONSES, &json!({"input": "say", "metadata": {"a": "b"}}));
    assert_eq!(status, 200, "{answer}");
    assert!(answer["id"].take().as_str().unwrap().starts_with("resp_"));
    let item = answer["output"][0]["id"].take();
    assert!(item.as_str().unwrap().starts_with("msg_"));
    assert!(answer["created_at"].take().as_u64() > Some(1_600_000_000) && answer["completed_at"].take().is_u64());
    let expect = json!({
        "id": null, "object": "response", "created_at": null, "completed_at": null, "status": "completed",
        "background": false, "conversation": null, "error": null, "incomplete_details": null, "model": "first",
        "output": [{
            "type": "message", "id": null, "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}],
        }],
        "usage": {
            "input_tokens": 7, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10,
        },
        "instructions": null, "max_output_tokens": null, "max_tool_calls": null, "metadata": {"a": "b"},
        "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
        "reasoning": {"effort": null, "summary": null}, "safety_identifier": null, "service_tier": "default",
        "store": true, "temperature": null, "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": null, "truncation": "disabled", "user": null,
    });
    assert_eq!(answer, expect);
}

#[test]
fn streams_are_what_openai_sends() {
    let api = Api::start();
    let stream = events(&api, RESPONSES, json!({"input": "say"}));
    assert_eq!(
        names(&stream),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, event) in stream.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let text: String = stream.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(text, TEXT);
    let last = &stream[stream.len() - 1]["response"];
    assert_eq!(last["output"][0]["content"][0]["text"], TEXT);
    assert_eq!(last["id"], stream[0]["response"]["id"]);
    // It is there by the time it is told.
    let path = format!("{RESPONSES}/{}", last["id"].as_str().unwrap());
    assert_eq!(&api.get(&path), &(200, last.clone()));
    for script in ["broken", "vanishes"] {
        let stream = events(&api, RESPONSES, json!({"input": script}));
        let last = stream.last().unwrap();
        assert_eq!(
            (&last["type"], &last["response"]["status"]),
            (&json!("response.failed"), &json!("failed"))
        );
        assert_eq!(last["response"]["error"]["code"], "server_error");
        // A failure is not kept.
        let path = format!("{RESPONSES}/{}", last["response"]["id"].as_str().unwrap());
        assert_eq!(api.get(&path).0, 404);
    }
    let stream = events(&api, RESPONSES, json!({"input": "bursts", "store": false}));
    assert_eq!(stream.last().unwrap()["type"], "response.incomplete");
    assert_eq!(
        stream.last().unwrap()["response"]["incomplete_details"]["reason"],
        "max_output_tokens"
    );
}

/// What the model was asked, for a response that tells it.
fn told(response: &Value) -> Value {
    let text = response["output"][0]["content"][0]["text"].as_str().unwrap();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

#[test]
fn responses_are_continued() {
    let api = Api::start();
    let post = |body: Value| {
        let (status, answer) = api.post(RESPONSES, &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let first = post(json!({"input": "tells one", "max_output_tokens": 5}));
    assert_eq!(told(&first)["max_tokens"], 5);
    let second = post(json!({"input": [{"role": "user", "content": "two"}], "previous_response_id": first["id"]}));
    assert_eq!(second["previous_response_id"], first["id"]);
    let said = first["output"][0]["content"][0]["text"].as_str().unwrap();
    let prompt = format!(
        "<|im_start|>user\ntells one<|im_end|>\n<|im_start|>assistant\n{said}<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n\
         <|im_start|>assistant\n"
    );
    assert_eq!(told(&second)["prompt"], prompt);
    let third = post(json!({"input": "three", "previous_response_id": second["id"], "store": false}));
    assert!(told(&third)["prompt"].as_str().unwrap().starts_with(prompt.as_str()));

    // What is not stored leaves nothing.
    let path = |response: &Value| format!("{RESPONSES}/{}", response["id"].as_str().unwrap());
    assert_eq!(api.get(&path(&third)).0, 404);
    let (status, error) = api.post(RESPONSES, &json!({"input": "x", "previous_response_id": third["id"]}));
    assert_eq!(
        (status, &error["error"]["code"]),
        (400, &json!("previous_response_not_found"))
    );
    assert_eq!(error["error"]["param"], "previous_response_id");

    assert_eq!(api.get(&path(&second)), (200, second.clone()));
    let (status, items) = api.get(&format!("{}/input_items", path(&second)));
    assert_eq!(
        (status, &items["data"][0]["content"]),
        (200, &json!([{"type": "input_text", "text": "two"}]))
    );
    assert_eq!((&items["object"], &items["has_more"]), (&json!("list"), &json!(false)));
    assert_eq!(items["first_id"], items["data"][0]["id"]);
    let delete = |response: &Value| client().delete(api.url(&path(response))).send().unwrap();
    assert_eq!(delete(&first).status(), 200);
    assert_eq!(delete(&first).status(), 404);
    // The chain is broken now.
    let (status, _) = api.post(RESPONSES, &json!({"input": "x", "previous_response_id": second["id"]}));
    assert_eq!(status, 400);
}

#[test]
fn mistakes_are_told() {
    let api = Api::start();
    for (body, status, param) in [
        (json!({}), 400, json!("input")),
        (json!({"input": "say", "model": "third"}), 404, json!("model")),
        (json!({"input": "say", "background": true}), 400, json!("background")),
        (json!({"input": "say", "conversation": "c"}), 400, json!("conversation")),
        (
            json!({"input": "say", "tools": [{"type": "web_search"}]}),
            400,
            json!("tools[0].type"),
        ),
        (json!({"input": "say", "temperature": 99}), 400, json!("temperature")),
        (
            json!({"input": "say", "previous_response_id": 5}),
            400,
            json!("previous_response_id"),
        ),
        (json!({"input": "long"}), 400, json!("input")),
        (json!({"input": "long", "truncation": "auto"}), 400, json!("input")),
        (json!({"input": "full"}), 429, json!(null)),
    ] {
        for streams in [false, true] {
            let mut body = body.clone();
            body["stream"] = streams.into();
            let (got, error) = api.post(RESPONSES, &body);
            assert_eq!((got, &error["error"]["param"]), (status, &param), "{body}: {error}");
        }
    }
    assert_eq!(api.get("/v1/responses/resp_x").0, 404);
    assert_eq!(api.get("/v1/responses/resp_x/input_items").0, 404);
    assert_eq!(api.get(RESPONSES).0, 426);
    let (status, count) = api.post("/v1/responses/input_tokens", &json!({"input": "x"}));
    let prompt = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(
        (status, count),
        (
            200,
            json!({"object": "response.input_tokens", "input_tokens": prompt.len()})
        )
    );
}

/// `truncation: auto` leaves the oldest turns out: a prompt that begins with them is too long for this engine.
#[test]
fn what_does_not_fit_is_left_out_if_allowed() {
    let api = Api::start();
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let input = json!([
        message("user", "long ago"),
        message("assistant", "a"),
        message("user", "tells")
    ]);
    let (status, _) = api.post(RESPONSES, &json!({ "input": input }));
    assert_eq!(status, 400);
    let (status, answer) = api.post(RESPONSES, &json!({"input": input, "truncation": "auto"}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        told(&answer)["prompt"],
        "<|im_start|>user\ntells<|im_end|>\n<|im_start|>assistant\n"
    );
}
