//! llama-server's endpoints: its shapes, its errors.

use serde_json::{Value, json};

use crate::scripted::{Api, SOON, TEXT};

const COMPLETION: &str = "/completion";

fn prompt(text: &str) -> Value {
    json!({ "prompt": text })
}

#[test]
fn a_text_is_told_with_all_about_it() {
    let api = Api::start();
    let body = json!({
        "prompt": ["say", 32, "it"], "n_predict": 5, "return_tokens": true, "stop": ["x"], "n_keep": 3, "grammar": null,
        "logit_bias": [[65, false]],
    });
    let (status, answer) = api.post(COMPLETION, &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["content"], &answer["tokens"]),
        (&json!(TEXT), &json!([1, 1, 1]))
    );
    assert_eq!(
        (&answer["stop"], &answer["stop_type"], &answer["stopping_word"]),
        (&json!(true), &json!("eos"), &json!(""))
    );
    assert_eq!((&answer["index"], &answer["model"]), (&json!(0), &json!("first")));
    assert_eq!(
        (
            &answer["tokens_evaluated"],
            &answer["tokens_predicted"],
            &answer["tokens_cached"]
        ),
        (&json!(7), &json!(3), &json!(9))
    );
    assert_eq!(
        (&answer["prompt"], &answer["has_new_line"], &answer["truncated"]),
        (&json!("say it"), &json!(true), &json!(false))
    );
    assert_eq!(answer["timings"]["cache_n"], 4);
    let settings = &answer["generation_settings"];
    assert_eq!(
        (&settings["n_predict"], &settings["stop"], &settings["n_keep"]),
        (&json!(5), &json!(["x"]), &json!(3))
    );
    assert_eq!(settings["logit_bias"], json!([{"token": 65, "bias": null}]));
    assert_eq!(settings["speculative.types"], "none");
    assert!(answer.get("completion_probabilities").is_none());
    // Tokens only for who wants them, and parts.
    assert_eq!(api.post("/completions", &prompt("say")).1["tokens"], json!([]));
    let mut body = prompt("say");
    body["response_fields"] = json!(["stop_type", "generation_settings/n_predict", "nothing"]);
    let expect = json!({"stop_type": "eos", "generation_settings/n_predict": -1});
    assert_eq!(api.post(COMPLETION, &body).1, expect);
}

#[test]
fn a_stream_ends_with_its_last_event() {
    let api = Api::start();
    let events = api.stream(COMPLETION, prompt("say"));
    let events: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let (last, texts) = events.split_last().unwrap();
    let text: String = texts.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(text, TEXT);
    let predicted: Vec<&Value> = texts.iter().map(|event| &event["tokens_predicted"]).collect();
    assert_eq!(predicted, [1, 2, 3]);
    assert!(
        texts
            .iter()
            .all(|event| event["stop"] == false && event["tokens"] == json!([1]))
    );
    assert_eq!((&last["stop"], &last["content"]), (&json!(true), &json!("")));
    assert_eq!(last["generation_settings"]["stream"], true);
    let body = json!({"prompt": "progresses", "return_progress": true, "timings_per_token": true});
    let events = api.stream(COMPLETION, body);
    let first: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(first["prompt_progress"]["cache"], 4);
    assert_eq!(
        (&first["tokens_evaluated"], &first["timings"]["prompt_n"]),
        (&json!(7), &json!(3))
    );
}

#[test]
fn several_answers_are_a_list() {
    let api = Api::start();
    let indexes = |answer: &Value| -> Vec<Value> {
        let answers = answer.as_array().unwrap().iter();
        answers
            .map(|answer| json!([answer["index"], answer["prompt"]]))
            .collect()
    };
    let (_, answer) = api.post(COMPLETION, &json!({"prompt": ["one", {"prompt_string": "two"}]}));
    assert_eq!(indexes(&answer), [json!([0, "one"]), json!([1, "two"])]);
    let (status, error) = api.post(COMPLETION, &json!({"prompt": "one", "n": 2}));
    assert_eq!(status, 400, "there is one slot: {error}");
    let events = api.stream(COMPLETION, json!({"prompt": ["one", "two"]}));
    let ends = events.iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
    let mut ends: Vec<u64> = ends
        .filter(|event| event["stop"] == true)
        .filter_map(|event| event["index"].as_u64())
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, [0, 1]);
}

#[test]
fn errors_are_in_llama_servers_form() {
    let api = Api::start();
    for (script, status, kind) in [
        ("full", 429, "rate_limit_error"),
        ("loading", 503, "unavailable_error"),
        ("broken", 500, "server_error"),
        ("vanishes", 500, "server_error"),
    ] {
        let (answered, error) = api.post(COMPLETION, &prompt(script));
        let error = &error["error"];
        assert_eq!(answered, status);
        assert_eq!((&error["code"], &error["type"]), (&json!(status), &json!(kind)));
        assert!(error["message"].is_string());
    }
    for (path, body) in [
        (COMPLETION, prompt("long")),
        (
            "/chat/completions",
            json!({"messages": [{"role": "user", "content": "long"}]}),
        ),
    ] {
        let (status, error) = api.post(path, &body);
        let error = &error["error"];
        assert_eq!((status, &error["type"]), (400, &json!("exceed_context_size_error")));
        assert_eq!(
            (&error["n_prompt_tokens"], &error["n_ctx"]),
            (&json!(9000), &json!(4096))
        );
    }
    for (path, body) in [
        (COMPLETION, json!({})),
        (COMPLETION, json!([])),
        (COMPLETION, json!({"prompt": "x", "temperature": "hot"})),
        (
            COMPLETION,
            json!({"prompt": {"prompt_string": "x", "multimodal_data": ["AAAA"]}}),
        ),
        ("/chat/completions", json!({"messages": 5})),
        ("/apply-template", json!({})),
        ("/tokenize", json!({"content": {}})),
        ("/tokenize", json!({"content": ["a", 1.5]})),
        ("/detokenize", json!({"tokens": [256]})),
    ] {
        let (status, error) = api.post(path, &body);
        let error = &error["error"];
        assert_eq!((status, &error["code"]), (400, &json!(400)), "{path} {body}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let (status, error) = api.post(COMPLETION, &json!({"prompt": "x", "model": "third"}));
    assert_eq!((status, &error["error"]["type"]), (404, &json!("not_found_error")));
    for (path, body) in [
        ("/props", json!({})),
        ("/slots/0?action=save", json!({"filename": "x"})),
        ("/lora-adapters", json!([])),
        ("/infill", json!({"input_prefix": "a", "input_suffix": "b"})),
        ("/embedding", json!({"content": "x"})),
        ("/rerank", json!({})),
    ] {
        let (status, error) = api.post(path, &body);
        let error = &error["error"];
        assert_eq!((status, &error["code"]), (501, &json!(501)), "{path}");
        assert_eq!(error["type"], "not_supported_error");
    }
    // In the middle of a stream as well.
    let events = api.stream(COMPLETION, prompt("broken"));
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!((events.len(), &last["error"]["code"]), (2, &json!(500)));
}

#[test]
fn time_ends_a_text_and_frees_its_slot() {
    let api = Api::start();
    let body = json!({"prompt": "lines", "t_max_predict_ms": 30});
    let (status, answer) = api.post(COMPLETION, &body);
    assert_eq!((status, &answer["stop_type"]), (200, &json!("limit")));
    assert!(answer["content"].as_str().unwrap().ends_with('\n'));
    api.left.recv_timeout(SOON).expect("the request must end");
    // A line without indentation is not part of it.
    let body = json!({"prompt": "lines", "n_indent": 1});
    let events = api.stream(COMPLETION, body);
    let texts = events
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap()["content"].clone());
    let texts: Vec<Value> = texts.collect();
    assert_eq!(texts, ["0\n", "", ""]);
    api.left.recv_timeout(SOON).expect("the request must end");
}

#[test]
fn the_server_tells_about_itself() {
    let api = Api::start();
    let (_, props) = api.get("/props?model=second");
    assert_eq!(
        (&props["model_alias"], &props["total_slots"]),
        (&json!("second"), &json!(1))
    );
    let defaults = &props["default_generation_settings"];
    assert_eq!(
        (&defaults["n_ctx"], &defaults["params"]["top_k"]),
        (&json!(4096), &json!(40))
    );
    assert!(defaults["params"].get("grammar").is_none());
    assert_eq!(api.get("/props?model=third").0, 404);
    let slot = json!([{"id": 0, "n_ctx": 4096, "speculative": false, "is_processing": false}]);
    assert_eq!(api.get("/slots?fail_on_no_slot=1"), (200, slot));
    assert_eq!(api.get("/lora-adapters"), (200, json!([])));
    let (_, models) = api.get("/models");
    assert_eq!(models["models"][1]["name"], "second");
    assert_eq!(models["data"][1]["meta"]["n_ctx"], 4096);
    let conversation = json!({"messages": [{"role": "user", "content": "say"}]});
    let (_, applied) = api.post("/apply-template", &conversation);
    let (_, counted) = api.post("/v1/chat/completions/input_tokens", &conversation);
    assert_eq!(counted["input_tokens"], applied["prompt"].as_str().unwrap().len());
}
