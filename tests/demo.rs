//! What a newcomer asks the built-in pair first, and what a sensible answer contains.

#[path = "common/mod.rs"]
mod common;

use common::Server;
use serde_json::{Value, json};

/// The content of the answer, and its calls.
fn answer(server: &Server, model: &str, messages: &Value, tools: &Value) -> (String, Vec<Value>) {
    let mut request = json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 160});
    if !tools.is_null() {
        request["tools"] = tools.clone();
    }
    let (status, reply) = server.post("/v1/chat/completions", &request);
    assert_eq!(status, 200, "{reply}");
    let message = &reply["choices"][0]["message"];
    let calls = message["tool_calls"].as_array().into_iter().flatten().map(|call| {
        let function = &call["function"];
        let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        json!({"name": function["name"], "arguments": arguments})
    });
    let calls = calls.collect();
    (message["content"].as_str().unwrap_or_default().to_owned(), calls)
}

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

fn weather_tool() -> Value {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let function =
        json!({"name": "get_weather", "description": "Get the current weather for a city", "parameters": city});
    json!([{"type": "function", "function": function}])
}

#[test]
fn the_first_questions_get_sensible_answers() {
    let server = Server::start("");
    let asked = [
        ("Hello", "Hello"),
        ("Who are you?", "demo reasoner"),
        ("What can you do?", "call tools"),
        ("What is 2+2?", "=4"),
        ("What is 2+2? Think step by step.", "=4"),
        ("What is 12 + 30?", "=42"),
        ("What is 7 times 8?", "=56"),
        ("What is the weather in Paris?", "cannot do that"),
        ("Tell me a joke", "hearth"),
        ("What is the capital of France?", "do not know"),
        ("Can you call tools?", "Yes"),
        ("Thanks", "welcome"),
    ];
    for (question, expected) in asked {
        let (said, calls) = answer(&server, "demo-reasoner", &user(question), &Value::Null);
        let right = match expected.strip_prefix('=') {
            Some(number) => said == number,
            None => said.contains(expected),
        };
        assert!(right && calls.is_empty(), "{question}: {said:?} {calls:?}");
    }
}

#[test]
fn a_call_its_answer_and_a_follow_up() {
    let server = Server::start("");
    let paris = json!({"name": "get_weather", "arguments": {"city": "Paris"}});
    let question = "What is the weather in Paris?";
    let (_, calls) = answer(&server, "demo-reasoner", &user(question), &weather_tool());
    assert_eq!(calls, [paris]);
    let function = json!({"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"});
    let call = json!([{"id": "call_0", "type": "function", "function": function}]);
    let result = "{\"temperature\": 18, \"condition\": \"cloudy\"}";
    let mut messages = json!([
        {"role": "user", "content": question},
        {"role": "assistant", "content": null, "tool_calls": call},
        {"role": "tool", "tool_call_id": "call_0", "content": result},
    ]);
    let (said, calls) = answer(&server, "demo-reasoner", &messages, &weather_tool());
    let complete = ["Paris", "18", "cloudy"].iter().all(|word| said.contains(word));
    assert!(complete && calls.is_empty(), "{said}");
    let turns = messages.as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": said}));
    turns.push(json!({"role": "user", "content": "And in Rome?"}));
    let (_, calls) = answer(&server, "demo-reasoner", &messages, &weather_tool());
    assert_eq!(calls, [json!({"name": "get_weather", "arguments": {"city": "Rome"}})]);
}

#[test]
fn the_narrator_greets_in_its_voice() {
    let server = Server::start("");
    for greeting in ["Hello", "Hi", "Good evening"] {
        let (said, _) = answer(&server, "demo-narrator", &user(greeting), &Value::Null);
        assert!(
            said.starts_with('"') && said.matches('"').count() >= 2,
            "{greeting}: {said}"
        );
    }
}
