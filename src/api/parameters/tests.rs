use super::super::other_fields::REFUSED;
use super::*;
use serde_json::json;

fn read(body: Value) -> Result<Options, String> {
    let read = || Parameters::of(&Body::of_value(body))?.options();
    read().map_err(|error| error.to_string())
}

#[track_caller]
fn refused(body: Value, expect: &str) {
    let message = read(body.clone()).expect_err(&body.to_string());
    assert!(message.contains(expect), "{body}: {message}");
}

/// The ranges of the description are those that the reader accepts.
#[test]
fn ranges_are_described() {
    let schema = serde_json::to_value(Parameters::schema()).unwrap();
    let accepts = |field: &str, value: f64| {
        // Whole numbers as such.
        #[expect(clippy::cast_possible_truncation, reason = "a test value")]
        let value = if value.fract() == 0.0 {
            json!(value as i64)
        } else {
            json!(value)
        };
        // `top_logprobs` goes with `logprobs` only.
        let options = match field {
            "top_logprobs" => read(json!({ "logprobs": true, field: value })),
            _ => read(json!({ field: value })),
        };
        options.is_ok_and(|options| options.sampling.problems().is_empty())
    };
    let mut seen = 0;
    for (field, property) in schema["properties"].as_object().unwrap() {
        let whole = property["type"].to_string().contains("integer");
        let step = if whole { 1.0 } else { 0.001 };
        for (bound, outside) in [("minimum", -step), ("maximum", step)] {
            let Some(bound) = property[bound].as_f64() else {
                continue;
            };
            seen += 1;
            assert!(accepts(field, bound), "{field} = {bound}");
            assert!(!accepts(field, bound + outside), "{field} = {}", bound + outside);
        }
        let numeric = whole || property["type"].to_string().contains("number");
        assert!(
            !numeric || field == "seed" || property["minimum"].is_number(),
            "{field} has no range"
        );
    }
    assert!(seen > 30, "{schema:#}");
}

#[test]
fn stops_are_strings() {
    assert_eq!(stops(&json!("a")).unwrap(), ["a"]);
    assert_eq!(stops(&json!(["a", "b"])).unwrap(), ["a", "b"]);
    assert!(stops(&json!([""])).is_err());
    assert!(stops(&json!([1])).is_err());
    assert!(stops(&json!(vec!["x"; 17])).is_err());
    assert!(stops(&json!("x".repeat(257))).is_err());
}

#[test]
fn biases_are_for_tokens_and_texts() {
    let token = BiasTarget::Token;
    let text = |text: &str| BiasTarget::Text(text.into());
    let off = f32::NEG_INFINITY;
    let expect = vec![(token(5), 1.5), (token(7), off), (text("no"), -2.0)];
    assert_eq!(logit_bias(&json!({"5": 1.5, "7": false, "no": -2})).unwrap(), expect);
    assert_eq!(logit_bias(&json!([[5, 1.5], [7, false], ["no", -2]])).unwrap(), expect);
    // In a list a string is a text, whatever it looks like; numbers may be floats.
    assert_eq!(
        logit_bias(&json!([["5", 1], [6.0, 1]])).unwrap(),
        [(text("5"), 1.0), (token(6), 1.0)]
    );
    for value in [
        json!("x"),
        json!({"1": "x"}),
        json!({"1": true}),
        json!({"": 1}),
        json!([1]),
        json!([[1]]),
        json!([[1, 2, 3]]),
        json!([[1.5, 2]]),
        json!([[null, 2]]),
        json!([["x".repeat(257), 2]]),
        json!(vec![json!([1, 1]); limits::BIASES + 1]),
    ] {
        assert!(logit_bias(&value).is_err(), "{value}");
    }
}

#[test]
fn numbers_of_tokens_have_several_names_and_forms() {
    let tokens = |body| read(body).unwrap().sampling.max_tokens;
    assert_eq!(tokens(json!({})), None);
    assert_eq!(tokens(json!({"max_tokens": null})), None);
    assert_eq!(tokens(json!({"max_tokens": 1.0})), Some(1));
    assert_eq!(tokens(json!({"max_tokens": 5, "max_completion_tokens": 4})), Some(4));
    assert_eq!(tokens(json!({"max_tokens": 5, "n_predict": 3})), Some(3));
    for name in ["max_tokens", "max_completion_tokens", "n_predict"] {
        assert_eq!(tokens(json!({ (name): -1 })), Some(i32::MAX.unsigned_abs()));
        refused(json!({ (name): -2 }), &format!("`{name}` is -2"));
        refused(json!({ (name): 0 }), &format!("`{name}` is 0"));
        refused(json!({ (name): 1.5 }), &format!("`{name}`: invalid value"));
        refused(json!({ (name): "many" }), &format!("`{name}`: invalid type"));
    }
    let sampling = read(json!({"top_k": -1.0, "seed": 7.0, "repeat_last_n": -1}))
        .unwrap()
        .sampling;
    assert_eq!(
        (sampling.top_k, sampling.seed, sampling.repeat_last_n),
        (Some(0), Some(7), Some(-1))
    );
    refused(json!({"repeat_last_n": 1u64 << 40}), "`repeat_last_n` is 1099511627776");
}

#[test]
fn samplers_have_names_and_letters() {
    use SamplerKind::{Temperature, TopK, TopP};
    let order = |value| read(json!({ "samplers": value })).unwrap().sampling.samplers;
    assert_eq!(order(json!(null)), None);
    assert_eq!(order(json!([])), Some(vec![]));
    assert_eq!(
        order(json!(["temperature", "top_k", "nucleus"])),
        Some(vec![Temperature, TopK, TopP])
    );
    assert_eq!(order(json!("tkp")), Some(vec![Temperature, TopK, TopP]));
    refused(json!({"samplers": ["magic"]}), "`magic`");
    refused(json!({"samplers": "z"}), "`z`");
    refused(json!({"samplers": [1]}), "1 is not the name");
    refused(json!({"samplers": 1}), "must be a list");
}

#[test]
fn probabilities_are_asked_for_in_several_ways() {
    let top = |body| read(body).unwrap().logprobs;
    assert_eq!(top(json!({})), None);
    assert_eq!(top(json!({"logprobs": false, "top_logprobs": null})), None);
    assert_eq!(top(json!({"logprobs": true})), Some(0));
    assert_eq!(top(json!({"logprobs": true, "top_logprobs": 3})), Some(3));
    assert_eq!(top(json!({"logprobs": 2})), Some(2));
    assert_eq!(top(json!({"logprobs": 0})), Some(0));
    assert_eq!(top(json!({"n_probs": 30})), Some(30));
    assert_eq!(top(json!({"n_probs": 0})), None);
    refused(json!({"top_logprobs": 3}), "needs `logprobs`");
    refused(json!({"logprobs": true, "top_logprobs": 21}), "`top_logprobs` is 21");
    refused(json!({"logprobs": "yes"}), "`logprobs` must be");
    refused(json!({"n_probs": -1}), "`n_probs` is -1");
}

#[test]
fn what_cannot_be_done_is_refused_and_what_is_off_is_not() {
    for refused in REFUSED {
        for field in refused.fields {
            for off in [json!(null), json!(-1)] {
                assert!(read(json!({ (*field): off })).is_ok(), "{field}: {off}");
            }
            let message = read(json!({ (*field): {"x": 5} })).expect_err(field);
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
    }
    for body in [
        json!({"n": 1}),
        json!({"logprobs": false, "echo": false}),
        json!({"lora": [], "modalities": ["text"], "mirostat": 0}),
        json!({"metadata": {"a": 1}, "user": "u", "made_up": true}),
    ] {
        assert!(read(body.clone()).is_ok(), "{body}");
    }
    refused(json!({"n": 0}), "`n` must be from 1");
    refused(json!({"n": 65}), "`n` must be from 1");
}

#[test]
fn every_field_is_in_one_list() {
    for field in REFUSED.iter().flat_map(|refused| refused.fields) {
        assert!(!KNOWN.contains(*field), "{field}");
    }
    assert!(KNOWN.contains("temperature") && KNOWN.contains("messages"));
}
