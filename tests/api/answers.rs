//! Whole answers and streams, against the types of OpenAI's clients.

use std::time::Instant;

use serde_json::{Value, json};

use crate::scripted::{Api, CHAT, TEXT, chat};

#[test]
fn whole_answers_are_what_openai_sends() {
    use async_openai::types::{chat, completions, models};
    let api = Api::start();
    let (status, body) = api.post(CHAT, &self::chat("say"));
    assert_eq!(status, 200, "{body}");
    let answer: chat::CreateChatCompletionResponse = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(answer.choices[0].message.content.as_deref(), Some(TEXT));
    assert_eq!(answer.choices[0].finish_reason, Some(chat::FinishReason::Stop));
    assert!(answer.id.starts_with("chatcmpl-"));
    assert_eq!(answer.model, "first");
    let usage = answer.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.total_tokens), (7, 10));
    assert_eq!(usage.prompt_tokens_details.unwrap().cached_tokens, Some(4));
    let timings = &body["timings"];
    assert_eq!(
        (&timings["prompt_n"], &timings["cache_n"], &timings["predicted_n"]),
        (&json!(3), &json!(4), &json!(3))
    );
    for name in ["prompt_ms", "prompt_per_second", "predicted_ms", "predicted_per_second"] {
        assert!(timings[name].as_f64().unwrap() > 0.0, "{name}");
    }

    for prompt in [json!("say"), json!(["say"]), json!([1, 2])] {
        let (_, body) = api.post("/v1/completions", &json!({ "prompt": prompt }));
        let answer: completions::CreateCompletionResponse = serde_json::from_value(body).unwrap();
        assert_eq!(answer.choices[0].text, TEXT);
    }
    let (_, body) = api.get("/v1/models");
    let list: models::ListModelResponse = serde_json::from_value(body).unwrap();
    assert_eq!(list.data.len(), 2);
    let (_, body) = api.post(
        "/api/v1/generate",
        &json!({"prompt": "say", "max_tokens": 3, "temperature": 0}),
    );
    assert_eq!((&body["text"], &body["finish_reason"]), (&json!(TEXT), &json!("stop")));
}

#[test]
fn streams_are_what_openai_sends() {
    use async_openai::types::chat::CreateChatCompletionStreamResponse as Chunk;
    let api = Api::start();
    for include_usage in [false, true] {
        let mut body = chat("say");
        body["stream_options"] = json!({ "include_usage": include_usage });
        let lines = api.stream(CHAT, body);
        let (done, lines) = lines.split_last().unwrap();
        assert_eq!(done, "[DONE]");
        let raw: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let chunks: Vec<Chunk> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            raw[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": null})
        );
        let text: String = chunks
            .iter()
            .flat_map(|chunk| &chunk.choices)
            .filter_map(|choice| choice.delta.content.as_deref())
            .collect();
        assert_eq!(text, TEXT);
        assert!(chunks.iter().all(|chunk| {
            (&chunk.id, chunk.created, &chunk.model) == (&chunks[0].id, chunks[0].created, &chunks[0].model)
        }));
        let choices: Vec<&Value> = raw.iter().filter_map(|chunk| chunk["choices"].get(0)).collect();
        assert_eq!(choices.last().unwrap()["finish_reason"], "stop");
        assert_eq!(choices.last().unwrap()["delta"], json!({}));
        assert!(
            choices[..choices.len() - 1]
                .iter()
                .all(|choice| choice["finish_reason"].is_null())
        );
        assert!(choices[1..].iter().all(|choice| choice["delta"].get("role").is_none()));
        let last = raw.last().unwrap();
        assert_eq!(last["timings"]["predicted_n"], 3);
        if include_usage {
            assert_eq!(
                (&last["choices"], &last["usage"]["total_tokens"]),
                (&json!([]), &json!(10))
            );
            assert!(raw[..raw.len() - 1].iter().all(|chunk| chunk["usage"] == Value::Null));
        } else {
            assert!(raw.iter().all(|chunk| chunk.get("usage").is_none()));
        }
    }
    for path in ["/v1/completions", "/api/v1/generate"] {
        let lines = api.stream(path, json!({"prompt": "say"}));
        let text: String = lines[..lines.len() - 1]
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|chunk| {
                let text = chunk.get("text").unwrap_or(&chunk["choices"][0]["text"]);
                text.as_str().unwrap_or_default().to_owned()
            })
            .collect();
        assert_eq!(text, TEXT);
    }
    let mut body = chat("progresses");
    body["return_progress"] = true.into();
    let lines = api.stream(CHAT, body);
    let chunks = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let progress = chunks.filter_map(|chunk| chunk.get("prompt_progress").cloned()).next();
    assert_eq!(
        progress,
        Some(json!({"total": 7, "cache": 4, "processed": 7, "time_ms": 5.0}))
    );
}

#[test]
fn a_burst_arrives_complete_and_in_order() {
    let api = Api::start();
    let expect: String = (0..20_000).map(|step| format!("{step} ")).collect();
    let started = Instant::now();
    let lines = api.stream(CHAT, chat("bursts"));
    eprintln!(
        "{:.0} tokens/s through HTTP",
        20_000.0 / started.elapsed().as_secs_f64()
    );
    let text: String = lines[..lines.len() - 1]
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, expect);
    // What comes while an answer is read leaves in one piece. How many there are is a matter of time: until the first parse is
    // over text is held, which on a busy machine can be all of the burst. Mostly nearly each token leaves by itself. Beside the
    // text there are the chunk of the role, that of the end, and `[DONE]`.
    assert!((4..=20_003).contains(&lines.len()), "{}", lines.len());
}

#[test]
fn a_final_message_can_be_continued() {
    let api = Api::start();
    // "im" is also in what the template puts behind the message.
    for content in ["im", "", "two words", "ends with a space "] {
        let body = json!({
            "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}],
            "continue_final_message": true,
        });
        let (status, answer) = api.post("/apply-template", &body);
        let expect = format!("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n{content}");
        assert_eq!((status, &answer["prompt"]), (200, &json!(expect)));
    }
}
