//! What becomes of the fields of a request.

use serde_json::{Value, json};

use crate::scripted::{Api, CHAT, TEXT, chat};

/// What the engine is asked, for a request with these fields.
fn told(api: &Api, fields: &Value) -> Value {
    let mut body = json!({"prompt": "tells"});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let (status, answer) = api.post("/v1/completions", &body);
    assert_eq!(status, 200, "{body}: {answer}");
    serde_json::from_str(answer["choices"][0]["text"].as_str().unwrap()).unwrap()
}

#[test]
fn fields_of_llama_server_are_honoured() {
    let api = Api::start();
    assert_eq!(told(&api, &json!({}))["max_tokens"], Value::Null);
    assert_eq!(told(&api, &json!({"n_predict": 7}))["max_tokens"], 7);
    assert_eq!(told(&api, &json!({"max_tokens": 1.0}))["max_tokens"], 1);
    assert_eq!(told(&api, &json!({"max_tokens": -1}))["max_tokens"], i32::MAX);
    assert_eq!(told(&api, &json!({"top_n_sigma": 1.5}))["top_n_sigma"], 1.5);
    let dynamic = json!({"dynatemp_range": 0.5, "dynatemp_exponent": 2});
    assert_eq!(told(&api, &dynamic)["dynatemp"], json!([0.5, 2.0]));
    assert_eq!(
        told(&api, &json!({"samplers": ["temperature", "top_k"]}))["samplers"],
        json!(["temperature", "top_k"])
    );
    // Tokens are bytes here.
    let expect = json!([[5, "1"], [104, "-inf"], [105, "-inf"]]);
    for bias in [json!([[5, 1], ["hi", false]]), json!({"5": 1, "hi": false})] {
        assert_eq!(told(&api, &json!({ "logit_bias": bias }))["logit_bias"], expect);
    }
    for (field, value) in [
        ("max_tokens", json!(-2)),
        ("n", json!(0)),
        ("mirostat", json!(3)),
        ("samplers", json!(["x"])),
    ] {
        let mut body = json!({"prompt": "tells"});
        body[field] = value;
        let (status, error) = api.post("/v1/completions", &body);
        assert_eq!((status, &error["error"]["param"]), (400, &json!(field)), "{error}");
    }
    // Who bans every token gets no answer.
    let all: Vec<Value> = (0..256).map(|token| json!([token, false])).collect();
    let (status, error) = api.post("/v1/completions", &json!({"prompt": "tells", "logit_bias": all}));
    assert_eq!(
        (status, &error["error"]["param"]),
        (400, &json!("logit_bias")),
        "{error}"
    );
}

#[test]
fn a_list_of_prompts_gives_a_choice_for_each() {
    let api = Api::start();
    let prompts = json!(["say", "tells one", [116, 101, 108, 108, 115], [116, 101, "lls"]]);
    let (status, answer) = api.post("/v1/completions", &json!({ "prompt": prompts }));
    assert_eq!(status, 200, "{answer}");
    let choices = answer["choices"].as_array().unwrap();
    let indices: Vec<_> = choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert_eq!(choices[0]["text"], TEXT);
    let prompt = |choice: usize| -> Value {
        let told: Value = serde_json::from_str(choices[choice]["text"].as_str().unwrap()).unwrap();
        told["prompt"].clone()
    };
    assert_eq!(prompt(1), "tells one");
    assert_eq!(prompt(2), json!([116, 101, 108, 108, 115]));
    assert_eq!(prompt(3), prompt(2));
    assert_eq!(
        (&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]),
        (&json!(28), &json!(12))
    );

    let body = json!({"prompt": ["say", "tells one"], "stream_options": {"include_usage": true}});
    let lines = api.stream("/v1/completions", body);
    let (done, lines) = lines.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut texts = [String::new(), String::new()];
    let mut ends = 0;
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        texts[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()] += choice["text"].as_str().unwrap();
        ends += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!((texts[0].as_str(), ends), (TEXT, 2));
    assert!(texts[1].contains("tells one"));
    assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], 20);

    for prompt in [json!([]), json!([[]]), json!([1, null]), json!(vec!["x"; 65])] {
        let (status, error) = api.post("/v1/completions", &json!({ "prompt": prompt }));
        assert_eq!((status, &error["error"]["param"]), (400, &json!("prompt")), "{prompt}");
    }
    let (status, _) = api.post("/api/v1/generate", &json!({"prompt": ["say", "say"]}));
    assert_eq!(status, 400);
    // One failure is a failure of all.
    let (status, _) = api.post("/v1/completions", &json!({"prompt": ["say", "broken"]}));
    assert_eq!(status, 500);
    let (status, _) = api.post("/v1/completions", &json!({"prompt": ["say", "full"]}));
    assert_eq!(status, 429);
}

#[test]
fn text_parts_stand_on_lines_of_their_own() {
    let api = Api::start();
    let part = |text: &str| json!({"type": "text", "text": text});
    let body = json!({"messages": [{"role": "user", "content": [part("a"), part("b"), part("")]}]});
    let (_, answer) = api.post("/apply-template", &body);
    assert_eq!(
        answer["prompt"],
        "<|im_start|>user\na\nb\n<|im_end|>\n<|im_start|>assistant\n"
    );
    // Unknown fields do no harm.
    let mut body = chat("say");
    body["made_up"] = json!({"x": 1});
    assert_eq!(api.post(CHAT, &body).0, 200);
}
