//! The same request, to a hearth and to another hearth before it.

use serde_json::{Value, json};

use crate::common::{Server, stream};

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "get_weather", "description": "Tells the weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}})
}

/// hearth before the built-in pair of another one, under the same names.
fn before(direct: &Server) -> Server {
    let model = |name: &str| {
        format!(
            "[[model]]\nname = \"demo-{name}\"\naliases = [\"{name}\"]\nupstream = {{ base_url = \"http://{}/v1\" }}\n",
            direct.address
        )
    };
    let text = format!("[server]\nport = 0\n{}{}", model("reasoner"), model("narrator"));
    Server::configured(&text, 1, None)
}

/// Without what no two answers have in common.
fn comparable(mut value: Value) -> Value {
    match &mut value {
        Value::Object(entries) => {
            for name in [
                "id",
                "created",
                "created_at",
                "completed_at",
                "timings",
                "item_id",
                "call_id",
                "signature",
                "system_fingerprint",
            ] {
                entries.remove(name);
            }
            for (_, entry) in entries.iter_mut() {
                *entry = comparable(entry.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = comparable(item.take());
            }
        }
        _ => {}
    }
    value
}

/// The parts of a streamed answer, whatever pieces they come in.
fn parts(lines: &[String]) -> Value {
    let (mut text, mut thought, mut calls, mut end) = (
        String::new(),
        String::new(),
        Vec::<(String, String)>::new(),
        Value::Null,
    );
    for line in lines.iter().filter(|line| *line != "[DONE]") {
        let chunk: Value = serde_json::from_str(line).unwrap();
        let choice = &chunk["choices"][0];
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        thought += choice["delta"]["reasoning_content"].as_str().unwrap_or_default();
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            if let Some(name) = function["name"].as_str() {
                calls.push((name.to_owned(), String::new()));
            }
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            calls[index].1 += function["arguments"].as_str().unwrap_or_default();
        }
        if !choice["finish_reason"].is_null() {
            end = choice["finish_reason"].clone();
        }
    }
    json!([text, thought, calls, end])
}

#[test]
fn answers_are_equal_in_every_form() {
    let direct = Server::start("");
    let through = before(&direct);
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": {
        "type": "object", "properties": {"answer": {"type": "string", "maxLength": 16}}, "required": ["answer"], "additionalProperties": false}}});
    let common = json!({"model": "demo-reasoner", "temperature": 0, "max_tokens": 200, "cache_prompt": false});
    let with = |fields: Value| {
        let mut body = common.clone();
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        body
    };
    let chats = [
        with(json!({"messages": user("What is 2 + 3?")})),
        with(json!({"messages": user("What is 2 + 3?"), "chat_template_kwargs": {"enable_thinking": false}})),
        with(json!({"messages": user("What is the weather in Rome?"), "tools": [weather()]})),
        with(json!({"messages": user("Hello"), "tools": [weather()], "tool_choice": "required"})),
        with(json!({"messages": user("Who are you?"), "response_format": schema})),
        with(json!({"messages": user("Who are you?"), "stop": ["a"]})),
        with(json!({"messages": user("Who are you?"), "max_tokens": 3, "logprobs": true, "top_logprobs": 2})),
        with(json!({"messages": user("Who are you?"), "n": 2, "max_tokens": 8})),
        with(
            json!({"messages": [{"role": "user", "content": "Tell me"}, {"role": "assistant", "content": "I am"}], "max_tokens": 8}),
        ),
        with(json!({"messages": [
            {"role": "user", "content": "What is the weather in Rome?"},
            {"role": "assistant", "content": null, "reasoning_content": "I must look.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "{\"sky\": \"sunny\"}"}], "tools": [weather()]})),
    ];
    let mut kinds = [false; 3];
    for body in chats {
        let path = "/v1/chat/completions";
        let (status, one) = direct.post(path, &body);
        assert_eq!(status, 200, "{one}");
        let (status, other) = through.post(path, &body);
        assert_eq!(status, 200, "{other}");
        assert_eq!(comparable(one.clone()), comparable(other), "{body}");
        let message = &one["choices"][0]["message"];
        for (kind, field) in ["content", "reasoning_content", "tool_calls"].into_iter().enumerate() {
            kinds[kind] |= !message[field].is_null();
        }
        if body["n"].is_null() {
            let mut body = body;
            body["stream"] = true.into();
            let expect = parts(&stream(direct.address, path, &body));
            assert_eq!(parts(&stream(through.address, path, &body)), expect, "{body}");
        }
    }
    assert_eq!(kinds, [true; 3], "thoughts, texts and calls were compared");
    for (path, body) in [
        (
            "/v1/responses",
            json!({"model": "demo-reasoner", "input": "What is 2 + 3?", "temperature": 0, "max_output_tokens": 200}),
        ),
        (
            "/v1/messages",
            json!({"model": "demo-reasoner", "messages": user("What is 2 + 3?"), "temperature": 0, "max_tokens": 200}),
        ),
        (
            "/api/v1/generate",
            json!({"model": "demo-reasoner", "prompt": "Who are you?", "temperature": 0, "max_tokens": 200}),
        ),
        (
            "/v1/completions",
            json!({"model": "demo-narrator", "prompt": ["Once upon", "You see"], "temperature": 0, "max_tokens": 8, "logprobs": 1}),
        ),
    ] {
        let (status, one) = direct.post(path, &body);
        assert_eq!(status, 200, "{one}");
        let (status, other) = through.post(path, &body);
        assert_eq!(status, 200, "{other}");
        let [mut one, mut other] = [comparable(one), comparable(other)];
        // What is cached depends on who asked before.
        for answer in [&mut one, &mut other] {
            answer["usage"] = Value::Null;
        }
        assert_eq!(one, other, "{path}");
    }
    // llama-server's own form.
    let body = json!({"model": "demo-narrator", "prompt": "Once upon", "temperature": 0, "n_predict": 8});
    let (one, other) = (
        direct.post("/completion", &body).1,
        through.post("/completion", &body).1,
    );
    assert_eq!(one["content"], other["content"], "{other}");
    // Mistakes are told as the server tells them.
    let (status, error) = through.post(
        "/v1/chat/completions",
        &with(json!({"messages": user(&"long ".repeat(200_000))})),
    );
    assert_eq!(
        (status, &error["error"]["code"]),
        (400, &json!("context_length_exceeded")),
        "{error}"
    );
}
