//! Templates of our own with the constructs of the usual model families, against what Python's Jinja2 makes of them
//! (`tests/templates/expect.py` wrote the expectations).

use hearth::chat::{RenderInput, Template};
use serde_json::{Map, Value};

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

#[test]
fn prompts_are_those_of_python() {
    let contexts: Map<String, Value> = serde_json::from_str(&read("contexts.json")).unwrap();
    let expected: Map<String, Value> = serde_json::from_str(&read("expected.json")).unwrap();
    assert!(expected.len() >= 20);
    let mut wrong = Vec::new();
    for (case, expect) in &expected {
        let (template, context) = case.split_once(' ').unwrap();
        let mut context = contexts[context].as_object().unwrap().clone();
        let template = Template::compile(&read(&format!("{template}.jinja")), "<s>", "</s>").unwrap();
        let input = RenderInput {
            messages: list(&mut context, "messages"),
            tools: list(&mut context, "tools"),
            add_generation_prompt: context.remove("add_generation_prompt") == Some(true.into()),
            variables: context,
        };
        let found = template.render(&input);
        if found.as_deref().ok() != expect.as_str() {
            wrong.push(format!(
                "{case}\n  expected {expect}\n  found    {:?}",
                found.as_deref()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
