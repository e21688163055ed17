//! Templates of our own with the constructs of the usual model families, against what Python's Jinja2 makes of them
//! (`tests/templates/expect.py` wrote the expectations).

use hearth::llama::chat::{Choice, Request, Template};
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
        let source = read(&format!("{template}.jinja"));
        let template = match Template::new(&source, "<s>", "</s>") {
            Ok(template) => template,
            Err(error) => {
                wrong.push(format!("{case}\n  {error}"));
                continue;
            }
        };
        let messages = list(&mut context, "messages");
        let tools = list(&mut context, "tools");
        let add_generation_prompt = context.remove("add_generation_prompt") == Some(true.into());
        let found = template.render(&Request {
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
        });
        let found = found.map(|rendered| rendered.prompt);
        if found.as_deref().ok() != expect.as_str() {
            wrong.push(format!(
                "{case}\n  expected {expect}\n  found    {:?}",
                found.as_deref()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
