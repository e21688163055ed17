use serde_json::{Map, json};

use super::*;
use crate::llama::chat::{Choice, Parser, Request, Template};

/// Thoughts in tags, calls as JSON in tags.
const TAGS: &str = include_str!("../../../scripts/demo/hearth_demo/chat_template.jinja");
/// Thoughts and calls as messages on channels of their own.
const CHANNELS: &str = "{%- for m in messages -%}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}\
                        <|message|>{{ m.content }}<|end|>{%- endfor -%}\
                        {%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}";
/// No thoughts, no calls.
const PLAIN: &str = "{%- for m in messages -%}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{%- endfor -%}\
                     {%- if add_generation_prompt -%}<assistant>{%- endif -%}";

fn prepare(template: &str, tools: bool, ending: &str) -> (Parser, Form) {
    let template = Template::new(template, "<s>", "</s>").unwrap();
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "tags": {"type": "array"}}, "required": ["city"]}}})
    };
    let mut messages = vec![json!({"role": "user", "content": "hi"})];
    if !ending.is_empty() {
        messages.push(json!({"role": "assistant", "content": ending}));
    }
    let rendered = template
        .render(Request {
            messages,
            tools: if tools {
                vec![tool("weather"), tool("weather_map")]
            } else {
                Vec::new()
            },
            tool_choice: Choice::Auto,
            parallel_tool_calls: true,
            add_generation_prompt: ending.is_empty(),
            continue_final_message: !ending.is_empty(),
            enable_thinking: true,
            reasoning_apart: true,
            json_schema: "",
            variables: &Map::new(),
        })
        .unwrap();
    let parser = Parser::new(&rendered.parser).unwrap();
    let form = Form {
        generation_prompt: rendered.parser.generation_prompt.clone(),
        thinking_start: rendered.thinking_start,
        thinking_ends: rendered.thinking_ends,
        hazards: "<".into(),
        calls: vec!["<tool_call>".into()],
        tools: vec!["weather".into(), "weather_map".into()],
        before: if ending.is_empty() {
            Message::default()
        } else {
            parser.parse("", true).unwrap()
        },
    };
    (parser, form)
}

/// What came of an answer: reasoning, content, calls with their arguments.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    reasoning: String,
    content: String,
    calls: Vec<(String, String)>,
}

fn told(reader: &mut Reader, told: &mut Told) {
    while let Some(piece) = reader.take() {
        match piece {
            Piece::Reasoning { text } => told.reasoning += &text,
            Piece::Content { text, .. } => {
                assert!(!text.is_empty());
                told.content += &text;
            }
            Piece::ToolCallStart { index, id, name } => {
                assert_eq!(
                    (index, id.is_empty(), name.is_empty()),
                    (told.calls.len(), false, false)
                );
                told.calls.push((name, String::new()));
            }
            Piece::ToolCallArguments { index, text } => told.calls[index].1 += &text,
            Piece::Progress(_) | Piece::RoutedExperts(_) | Piece::Finished { .. } => unreachable!(),
        }
    }
}

/// Reads an answer that comes in parts of `size` characters and is parsed after each `every`th; counts the parses.
fn read(parser: &Parser, form: &Form, text: &str, size: usize, every: usize, cut: bool) -> (Told, usize) {
    let mut reader = Reader::new(form.clone());
    let (mut all, mut parses) = (Told::default(), 0);
    let characters: Vec<char> = text.chars().collect();
    for (index, part) in characters.chunks(size).enumerate() {
        reader.push(&part.iter().collect::<String>(), 1, Vec::new());
        if index % every == 0
            && let Some(job) = reader.job()
        {
            parses += 1;
            let result = parser.parse(&job.text, job.partial);
            reader.parsed(&job, result);
        }
        told(&mut reader, &mut all);
    }
    if let Some(job) = reader.last_job(cut) {
        let result = parser.parse(&job.text, job.partial);
        if let Some(again) = reader.parsed_last(job, result) {
            let result = parser.parse(&again.text, again.partial);
            reader.parsed_malformed(&again, result);
        }
    }
    told(&mut reader, &mut all);
    (all, parses)
}

/// Every way to cut an answer gives the same.
#[track_caller]
fn check(template: &str, tools: bool, text: &str, expect: (&str, &str, &[(&str, &str)])) {
    let (parser, form) = prepare(template, tools, "");
    let (reasoning, content, calls) = expect;
    let expect = Told {
        reasoning: reasoning.into(),
        content: content.into(),
        calls: calls
            .iter()
            .map(|(name, arguments)| ((*name).into(), (*arguments).into()))
            .collect(),
    };
    for size in [1, 2, 3, 7, 1000] {
        for every in [1, 2, 5, 1000] {
            let (told, _) = read(&parser, &form, text, size, every, false);
            assert_eq!(told, expect, "parts of {size}, parsed each {every}");
        }
    }
}

#[test]
fn thoughts_content_and_calls_are_told_apart() {
    let call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome, \\\"Lazio\\\"\"}}\n</tool_call>";
    let arguments = r#"{"city": "Rome, \"Lazio\""}"#;
    check(TAGS, false, "Hello, <b>you</b>!\n", ("", "Hello, <b>you</b>!\n", &[]));
    check(
        TAGS,
        true,
        "<think>\nLet me see: 1 < 2, </b>.\n</think>\n\nFine.",
        ("Let me see: 1 < 2, </b>.", "Fine.", &[]),
    );
    check(
        TAGS,
        true,
        &format!("<think>\nso\n</think>\n\nI look.\n{call}"),
        ("so", "I look.", &[("weather", arguments)]),
    );
    check(
        TAGS,
        true,
        &format!("{call}\n{}", call.replace("weather", "weather_map")),
        ("", "", &[("weather", arguments), ("weather_map", arguments)]),
    );
    check(PLAIN, false, "a < b, c > d [1] {2}", ("", "a < b, c > d [1] {2}", &[]));
}

#[test]
fn channels_are_told_apart() {
    check(
        CHANNELS,
        true,
        "<|channel|>analysis<|message|>Need the weather.<|end|><|start|>assistant<|channel|>final<|message|>It rains.",
        ("Need the weather.", "It rains.", &[]),
    );
    check(
        CHANNELS,
        true,
        "<|channel|>analysis<|message|>I call.<|end|><|start|>assistant<|channel|>commentary to=functions.weather \
         <|constrain|>json<|message|>{\"city\":\"Rome\"}",
        ("I call.", "", &[("weather", r#"{"city":"Rome"}"#)]),
    );
}

#[test]
fn an_answer_may_be_cut_off_anywhere() {
    let (parser, form) = prepare(TAGS, true, "");
    let text = "<think>\nso it is\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}";
    for (end, _) in text.char_indices() {
        let (whole, _) = read(&parser, &form, &text[..end], 1000, 1, true);
        let (parts, _) = read(&parser, &form, &text[..end], 1, 1, true);
        assert_eq!(whole, parts, "{}", &text[..end]);
        assert!("so it is".starts_with(&whole.reasoning));
        assert!("I look.\n<tool_call>".starts_with(&whole.content), "{whole:?}");
    }
}

#[test]
fn a_malformed_call_is_content() {
    let (parser, form) = prepare(TAGS, true, "");
    for text in [
        "Well: <tool_call>\n{{{\n</tool_call>",
        "<tool_call>\n{\"name\": \"nobody\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>",
    ] {
        let (told, _) = read(&parser, &form, text, 1, 1, false);
        assert_eq!((told.content.as_str(), told.calls.len()), (text, 0));
        let thought = format!("<think>\nhm\n</think>\n\n{text}");
        let (told, _) = read(&parser, &form, &thought, 1, 1, false);
        assert_eq!((told.reasoning.as_str(), told.content.as_str()), ("hm", text));
    }
}

#[test]
fn brackets_without_end_are_harmless() {
    let (parser, form) = prepare(TAGS, true, "");
    let brackets = "[".repeat(60_000);
    for before in [
        "",
        "<think>\nhm\n</think>\n\n",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": ",
    ] {
        let (told, parses) = read(&parser, &form, &format!("{before}{brackets}"), 50, 1, true);
        assert!(parses < 100);
        let text = told.content + told.calls.first().map_or("", |call| &call.1);
        assert!(text.len() > 59_000, "{before}: {}", text.len());
    }
}

#[test]
fn long_thoughts_and_texts_are_hardly_parsed() {
    let (parser, form) = prepare(TAGS, true, "");
    let thought = "Wait, maybe the other way round is right; let me see.\n".repeat(2000);
    let text = format!(
        "<think>\n{thought}</think>\n\n{}",
        "It is so, because it is. ".repeat(2000)
    );
    let (told, parses) = read(&parser, &form, &text, 4, 1, false);
    assert_eq!(told.reasoning, thought.trim_end());
    assert_eq!(told.content, "It is so, because it is. ".repeat(2000));
    assert!(parses < 20, "{parses}");
}

#[test]
fn what_was_there_before_is_not_told_again() {
    let (parser, form) = prepare(TAGS, true, "The answer");
    let (told, _) = read(&parser, &form, " is <b>42</b>.", 1, 1, false);
    assert_eq!(told.content, " is <b>42</b>.");
    assert_eq!(told.reasoning, "");
}

#[test]
fn tokens_of_thoughts_are_counted() {
    let (_, form) = prepare(TAGS, true, "");
    let mut reader = Reader::new(form);
    let (parser, _) = prepare(TAGS, true, "");
    for part in ["<think>", "\n", "a ", "b ", "c", "\n", "</think>", "\n\n", "Yes", "."] {
        reader.push(part, 1, Vec::new());
        if let Some(job) = reader.job() {
            let result = parser.parse(&job.text, job.partial);
            reader.parsed(&job, result);
        }
    }
    assert!(
        (5..=8).contains(&reader.reasoning_tokens()),
        "{}",
        reader.reasoning_tokens()
    );
}

#[test]
fn probabilities_come_with_their_text() {
    let probable = |token| TokenLogprob {
        chosen: crate::engine::Candidate {
            token,
            bytes: vec![b'x'],
            logprob: -1.0,
        },
        top: Vec::new(),
    };
    let (parser, form) = prepare(TAGS, true, "");
    let mut reader = Reader::new(form);
    let parts = ["<think>", "\nno\n", "</think>", "\n\n", "Yes", ", it", " is", "."];
    for (token, part) in (0..).zip(parts) {
        reader.push(part, 1, vec![probable(token)]);
        if let Some(job) = reader.job() {
            let result = parser.parse(&job.text, job.partial);
            reader.parsed(&job, result);
        }
    }
    let mut found = Vec::new();
    while let Some(piece) = reader.take() {
        if let Piece::Content { logprobs, .. } = piece {
            found.extend(logprobs.into_iter().map(|probable| probable.chosen.token));
        }
    }
    assert_eq!(found, [4, 5, 6, 7]);
}

#[test]
fn tokens_of_thoughts_are_counted_whenever_the_parser_is_asked() {
    // Each character is a token.
    for (template, thought, content) in [
        (TAGS, "<think>\n7 + 5 = 12\n</think>", "\n\n12 apples"),
        (
            CHANNELS,
            "<|channel|>analysis<|message|>7 + 5 = 12<|end|>",
            "<|start|>assistant<|channel|>final<|message|>12 apples",
        ),
    ] {
        let (parser, form) = prepare(template, false, "");
        for every in [1, 5, usize::MAX] {
            let mut reader = Reader::new(form.clone());
            for (index, character) in (thought.to_owned() + content).chars().enumerate() {
                reader.push(&character.to_string(), 1, Vec::new());
                if index % every == every - 1
                    && let Some(job) = reader.job()
                {
                    reader.parsed(&job, parser.parse(&job.text, job.partial));
                }
            }
            if let Some(job) = reader.last_job(false) {
                let result = parser.parse(&job.text, job.partial);
                assert!(reader.parsed_last(job, result).is_none());
            }
            let tokens = usize::try_from(reader.reasoning_tokens()).unwrap();
            let least = thought.trim_end_matches("</think>").trim_end().len();
            assert!(
                (least - 7..=thought.len()).contains(&tokens),
                "{tokens} of {}, parsed after every {every}: {thought}",
                thought.len()
            );
            let (plain, mut told_of_it) = (told, Told::default());
            plain(&mut reader, &mut told_of_it);
            assert_eq!(
                (&*told_of_it.reasoning, &*told_of_it.content),
                ("7 + 5 = 12", "12 apples")
            );
        }
    }
}
