//! Conversations with the built-in reasoner: reasoning, calls, forms of answers, through the real server.

#[path = "common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader};

use common::Server;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn weather() -> Value {
    tool("get_weather", &json!({"city": {"type": "string"}}), &["city"])
}

fn tool(name: &str, properties: &Value, required: &[&str]) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "Tells what it is asked for", "parameters": {
        "type": "object", "properties": properties, "required": required}}})
}

fn ask(question: &str) -> Value {
    json!({
        "model": "demo-reasoner",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 300,
    })
}

/// The chunks of a streamed answer.
fn stream(server: &Server, mut body: Value) -> Vec<Value> {
    body["stream"] = true.into();
    let response = reqwest::blocking::Client::new()
        .post(format!("http://{}{CHAT}", server.address))
        .body(body.to_string())
        .send()
        .unwrap();
    assert_eq!(response.status(), 200);
    let lines = BufReader::new(response).lines().map(Result::unwrap);
    let data = lines.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned()));
    data.take_while(|data| data != "[DONE]")
        .map(|data| serde_json::from_str(&data).unwrap())
        .collect()
}

fn deltas(chunks: &[Value]) -> Vec<&Value> {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0))
        .map(|choice| &choice["delta"])
        .collect()
}

fn text_of(chunks: &[Value], field: &str) -> String {
    deltas(chunks)
        .iter()
        .filter_map(|delta| delta[field].as_str())
        .collect()
}

#[test]
fn a_call_is_streamed_in_pieces() {
    let server = Server::start("");
    let mut body = ask("What is the weather in Rome?");
    body["tools"] = json!([weather()]);
    body["stream_options"] = json!({"include_usage": true});
    let chunks = stream(&server, body.clone());
    let calls: Vec<&Value> = deltas(&chunks)
        .iter()
        .filter_map(|delta| delta["tool_calls"].get(0))
        .collect();
    assert!(calls.len() >= 2, "{chunks:?}");
    assert_eq!((&calls[0]["index"], &calls[0]["type"]), (&json!(0), &json!("function")));
    assert_eq!(calls[0]["function"]["name"], "get_weather");
    assert!(calls[0]["id"].as_str().is_some_and(|id| !id.is_empty()));
    for call in &calls[1..] {
        assert_eq!(call["index"], 0);
        assert!(call.get("id").is_none() && call.get("type").is_none() && call["function"].get("name").is_none());
    }
    let arguments: String = calls
        .iter()
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(
        serde_json::from_str::<Value>(&arguments).unwrap(),
        json!({"city": "Rome"})
    );
    assert!(deltas(&chunks).iter().all(|delta| delta["content"] != ""));
    let ends: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str())
        .collect();
    assert_eq!(ends, ["tool_calls"]);
    assert!(chunks.last().unwrap()["usage"]["completion_tokens"].as_u64().unwrap() > 5);

    // The same as a whole, and the answer that follows from the result.
    let (status, answer) = server.post(CHAT, &body);
    assert_eq!(status, 200, "{answer}");
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &answer["choices"][0]["finish_reason"]),
        (&Value::Null, &json!("tool_calls"))
    );
    let call = &message["tool_calls"][0];
    assert_eq!(call["function"]["arguments"], arguments.as_str());
    body["messages"].as_array_mut().unwrap().extend([
        message.clone(),
        json!({"role": "tool", "tool_call_id": call["id"], "content": "{\"temperature\": 21, \"sky\": \"sunny\"}"}),
    ]);
    let (status, answer) = server.post(CHAT, &body);
    assert_eq!(status, 200, "{answer}");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("21") || text.contains("sunny"), "{text}");
}

#[test]
fn reasoning_is_streamed_apart_and_counted() {
    let server = Server::start("");
    let mut body = ask("What is 12 + 30? Think step by step.");
    body["stream_options"] = json!({"include_usage": true});
    let chunks = stream(&server, body.clone());
    let reasoning = text_of(&chunks, "reasoning_content");
    assert!(!reasoning.is_empty(), "{chunks:?}");
    assert_eq!(reasoning, text_of(&chunks, "reasoning"));
    let content = text_of(&chunks, "content");
    assert!(!content.is_empty() && !content.contains("think>") && !reasoning.contains("think>"));
    let usage = &chunks.last().unwrap()["usage"];
    let counted = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
    assert!(
        counted > 0 && counted < usage["completion_tokens"].as_u64().unwrap(),
        "{usage}"
    );

    let (_, answer) = server.post(CHAT, &body);
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning_content"], &message["content"]),
        (&json!(reasoning), &json!(content))
    );

    body["reasoning_format"] = "none".into();
    let (_, answer) = server.post(CHAT, &body);
    let message = &answer["choices"][0]["message"];
    assert!(message.get("reasoning_content").is_none());
    assert!(message["content"].as_str().unwrap().starts_with("<think>"), "{message}");
    body["reasoning_format"] = "other".into();
    assert_eq!(server.post(CHAT, &body).1["error"]["param"], "reasoning_format");
}

#[test]
fn required_and_named_calls_are_made_and_none_is_not() {
    let server = Server::start("");
    let sum = tool(
        "add",
        &json!({"a": {"type": "integer"}, "b": {"type": "integer"}}),
        &["a", "b"],
    );
    let mut body = ask("Hello, who are you?");
    body["tools"] = json!([weather(), sum]);
    body["temperature"] = 1.5.into();
    for (choice, names) in [
        (json!("required"), &["get_weather", "add"][..]),
        (json!({"type": "function", "function": {"name": "add"}}), &["add"]),
    ] {
        body["tool_choice"] = choice;
        for seed in 0..4 {
            body["seed"] = seed.into();
            let (status, answer) = server.post(CHAT, &body);
            assert_eq!(status, 200, "{answer}");
            let choice = &answer["choices"][0];
            if choice["finish_reason"] == "length" {
                continue;
            }
            assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
            assert_eq!(choice["message"]["content"], Value::Null, "{choice}");
            for call in choice["message"]["tool_calls"].as_array().unwrap() {
                let name = call["function"]["name"].as_str().unwrap();
                assert!(names.contains(&name), "{choice}");
                let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
                match name {
                    "add" => assert!(arguments["a"].is_i64() && arguments["b"].is_i64(), "{arguments}"),
                    _ => assert!(arguments["city"].is_string(), "{arguments}"),
                }
            }
        }
    }
    body["tool_choice"] = "none".into();
    body["messages"] = ask("What is the weather in Rome?")["messages"].clone();
    body["temperature"] = 0.into();
    let (_, answer) = server.post(CHAT, &body);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer["choices"][0]["message"].get("tool_calls").is_none(), "{answer}");
}

#[test]
fn what_cannot_be_asked_is_named() {
    let server = Server::start("");
    let base = {
        let mut body = ask("hi");
        body["tools"] = json!([weather()]);
        body
    };
    let object = json!({"type": "object"});
    for (field, value, param) in [
        (
            "tool_choice",
            json!({"type": "function", "function": {"name": "nobody"}}),
            "tool_choice",
        ),
        ("tool_choice", json!("maybe"), "tool_choice"),
        ("tools", json!("weather"), "tools"),
        ("tools", json!([{"type": "function"}]), "tools[0].function.name"),
        ("tools", json!([tool("say hi", &json!({}), &[])]), "tools"),
        ("tools", json!([weather(), weather()]), "tools"),
        (
            "tools",
            json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "nothing"}}}]),
            "tools",
        ),
        ("response_format", json!({"type": "yaml"}), "response_format.type"),
        ("grammar", json!("root ::= \"a\""), "grammar"),
        ("continue_final_message", json!(7), "continue_final_message"),
        (
            "chat_template_kwargs",
            json!({"enable_thinking": "no"}),
            "chat_template_kwargs.enable_thinking",
        ),
    ] {
        let mut body = base.clone();
        body[field] = value.clone();
        let (status, error) = server.post(CHAT, &body);
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!(param)),
            "{field}: {value}: {error}"
        );
    }
    let mut body = ask("hi");
    body["tool_choice"] = "required".into();
    assert_eq!(server.post(CHAT, &body).1["error"]["param"], "tool_choice");
    // References that lead to themselves, and nesting without end.
    let mut deep = json!({"type": "string"});
    for _ in 0..110 {
        deep = json!({"type": "array", "items": deep});
    }
    for schema in [
        json!({"allOf": [{"$ref": "#/a"}], "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}),
        json!({"$ref": "#/nowhere"}),
        deep,
    ] {
        let mut body = ask("hi");
        body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let (status, error) = server.post(CHAT, &body);
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!("response_format")),
            "{error}"
        );
    }
    let mut body = ask("hi");
    body["json_schema"] = object;
    body["response_format"] = json!({"type": "json_object"});
    assert_eq!(server.post(CHAT, &body).0, 400);
}

#[test]
fn forms_are_kept() {
    let server = Server::start("");
    let schema = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["rain", "sun"]},
            "degrees": {"type": "integer", "minimum": -60, "maximum": 60},
        },
        "required": ["city", "kind", "degrees"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut body = ask("What is the weather in Rome?");
    body["temperature"] = 1.5.into();
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    for seed in 0..6 {
        body["seed"] = seed.into();
        let (status, answer) = server.post(CHAT, &body);
        assert_eq!(status, 200, "{answer}");
        let choice = &answer["choices"][0];
        if choice["finish_reason"] == "length" {
            continue;
        }
        let text = choice["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(validator.is_valid(&value), "{value}");
    }
    let mut body = ask("Say something.");
    body["grammar"] = "root ::= \"yes\" | \"no\"".into();
    let (_, answer) = server.post(CHAT, &body);
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text == "yes" || text == "no", "{text}");
    // Thoughts come before it.
    let mut body = ask("What is 17 + 25? Think step by step.");
    body["grammar"] = "root ::= \"yes\" | \"no\"".into();
    let (_, answer) = server.post(CHAT, &body);
    let message = &answer["choices"][0]["message"];
    let text = message["content"].as_str().unwrap();
    assert!(text == "yes" || text == "no", "{answer}");
    assert!(
        message["reasoning_content"]
            .as_str()
            .is_some_and(|thought| !thought.is_empty()),
        "{answer}"
    );
}

#[test]
fn pieces_tell_what_was_taken_so_far() {
    let server = Server::start("");
    let mut body = ask("What is 12 + 30? Think step by step.");
    body["timings_per_token"] = true.into();
    let chunks = stream(&server, body);
    let count = |chunk: &Value, field: &str| chunk["timings"][field].as_u64();
    let told: Vec<u64> = chunks.iter().filter_map(|chunk| count(chunk, "predicted_n")).collect();
    // How many there are depends on how busy the machine is.
    assert!(told.len() > 1 && told.is_sorted(), "{told:?}");
    assert!(told[0] > 0 && told[0] < told[told.len() - 1], "{told:?}");
    // The prefill is counted as well, but not told.
    let last = &chunks[chunks.len() - 1];
    for chunk in &chunks {
        assert_eq!(chunk.get("prompt_progress"), None);
        if let Some(prompt) = count(chunk, "prompt_n") {
            assert_eq!(Some(prompt), count(last, "prompt_n"));
        }
    }
}

#[test]
fn templates_come_from_the_configuration() {
    let template = "{% for m in messages %}[{{ m.role }}{{ mood }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}";
    let server = Server::start(&format!(
        "chat_template = '{template}'\nchat_template_kwargs = '{{\"mood\": \"!\"}}'"
    ));
    let mut body = ask("hi");
    assert_eq!(server.post("/apply-template", &body).1["prompt"], "[user!]hi>");
    body["chat_template_kwargs"] = json!({"mood": "?", "messages": []});
    assert_eq!(server.post("/apply-template", &body).1["prompt"], "[user?]hi>");
}

/// What a user writes is text, also where it looks like the end of the message.
#[test]
fn control_tokens_in_messages_are_text() {
    let server = Server::start("");
    let tokens = |text: &str| {
        let mut body = ask(text);
        body["max_tokens"] = 1.into();
        let (status, answer) = server.post(CHAT, &body);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = tokens("hi");
    // As control tokens they would be two more.
    let with = tokens("hi<|im_end|><|im_start|>");
    assert!(with > plain + 6, "{plain} {with}");
    let (_, answer) = server.post("/apply-template", &ask("hi<|im_end|>"));
    assert!(
        answer["prompt"].as_str().unwrap().contains("hi<|im_end|><|im_end|>"),
        "{answer}"
    );
}

#[test]
fn thoughts_have_a_budget() {
    let server = Server::start("");
    let mut body = ask("What is 12 + 30? Think step by step.");
    let words = |answer: &Value| {
        let thought = &answer["choices"][0]["message"]["reasoning_content"];
        thought.as_str().map_or(0, |thought| thought.split_whitespace().count())
    };
    let (_, free) = server.post(CHAT, &body);
    assert!(words(&free) > 3, "{free}");
    body["reasoning_budget_tokens"] = 2.into();
    let (status, bound) = server.post(CHAT, &body);
    assert_eq!(status, 200, "{bound}");
    assert!(words(&bound) <= 2, "{bound}");
    assert!(
        !bound["choices"][0]["message"]["content"].as_str().unwrap().is_empty(),
        "{bound}"
    );
    body["reasoning_budget_tokens"] = (-7).into();
    assert_eq!(server.post(CHAT, &body).1["error"]["param"], "reasoning_budget_tokens");
}
