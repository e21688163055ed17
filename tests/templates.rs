//! Templates of our own with the constructs of the usual model families, against what Python's Jinja2 makes of them
//! (`tests/templates/expect.py` wrote the expectations).

use std::collections::BTreeSet;

use hearth::llama::chat::{ChatError, Choice, Rendered, Request, Template};
use serde_json::{Map, Value, json};

fn read(name: &str) -> String {
    let path = format!("{}/tests/templates/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn list(context: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match context.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn compiled(name: &str) -> Template {
    Template::new(&read(&format!("{name}.jinja")), "<s>", "</s>").unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn render(template: &Template, context: &Value) -> Result<Rendered, ChatError> {
    let mut context = context.as_object().unwrap().clone();
    let messages = list(&mut context, "messages");
    let tools = list(&mut context, "tools");
    let add_generation_prompt = context.remove("add_generation_prompt") == Some(true.into());
    template.render(Request {
        messages,
        tools,
        tool_choice: Choice::Auto,
        parallel_tool_calls: true,
        add_generation_prompt,
        continue_final_message: false,
        enable_thinking: context.shift_remove("enable_thinking") != Some(false.into()),
        reasoning_apart: true,
        json_schema: "",
        variables: &context,
    })
}

/// Whatever a template rendered before: messages of their own, with thoughts, calls and results, once and twice.
#[test]
fn a_used_template_says_the_same_as_a_new_one() {
    let contexts: Map<String, Value> = serde_json::from_str(&read("contexts.json")).unwrap();
    let expected: Map<String, Value> = serde_json::from_str(&read("expected.json")).unwrap();
    let names: BTreeSet<&str> = expected.keys().map(|case| case.split_once(' ').unwrap().0).collect();
    for name in names {
        let used = compiled(name);
        for (context, first) in contexts.iter().chain(&contexts) {
            let mut asked = first.clone();
            for message in [
                json!({"role": "assistant", "content": "Seven.", "reasoning_content": "Three and four."}),
                json!({"role": "user", "content": "<think>And five?"}),
            ] {
                assert_eq!(
                    render(&used, &asked),
                    render(&compiled(name), &asked),
                    "{name}, {context}"
                );
                asked["messages"].as_array_mut().unwrap().push(message);
            }
            assert_eq!(
                render(&used, &asked),
                render(&compiled(name), &asked),
                "{name}, {context}"
            );
        }
    }
}

#[test]
fn prompts_are_those_of_python() {
    let contexts: Map<String, Value> = serde_json::from_str(&read("contexts.json")).unwrap();
    let expected: Map<String, Value> = serde_json::from_str(&read("expected.json")).unwrap();
    assert!(expected.len() >= 20);
    let mut wrong = Vec::new();
    for (case, expect) in &expected {
        let (template, context) = case.split_once(' ').unwrap();
        let found = render(&compiled(template), &contexts[context]).map(|rendered| rendered.prompt);
        if found.as_deref().ok() != expect.as_str() {
            wrong.push(format!(
                "{case}\n  expected {expect}\n  found    {:?}",
                found.as_deref()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
