use serde_json::json;

use super::*;

/// Thoughts in tags, calls as JSON in tags.
const TAGS: &str = include_str!("../../../scripts/demo/hearth_demo/chat_template.jinja");

fn request<'r>(messages: Value, tools: Value, variables: &'r Map<String, Value>) -> Request<'r> {
    Request {
        messages: messages.as_array().unwrap().clone(),
        tools: tools.as_array().unwrap().clone(),
        tool_choice: Choice::Auto,
        parallel_tool_calls: true,
        add_generation_prompt: true,
        continue_final_message: false,
        enable_thinking: true,
        reasoning_apart: true,
        json_schema: "",
        variables,
    }
}

fn weather() -> Value {
    json!([{"type": "function", "function": {"name": "weather", "description": "d", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}])
}

#[test]
fn a_conversation_becomes_a_prompt_and_a_parser() {
    let variables = Map::new();
    let template = Template::new(TAGS, "<s>", "</s>").unwrap();
    assert!(template.abilities().tools && template.abilities().tool_calls);
    let hello = json!([{"role": "user", "content": "hi"}]);
    let rendered = template.render(request(hello.clone(), json!([]), &variables)).unwrap();
    assert_eq!(
        rendered.prompt,
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!((rendered.grammar.as_str(), rendered.thinks), ("", true));
    assert_eq!(
        (rendered.thinking_start.as_str(), rendered.thinking_ends.len()),
        ("<think>", 1)
    );
    assert!(rendered.preserved.iter().any(|text| text == "<tool_call>"));

    let mut with_tools = request(hello, weather(), &variables);
    let rendered = template.render(with_tools.clone()).unwrap();
    assert!(rendered.lazy && rendered.grammar.contains("root ::="));
    assert_eq!(rendered.triggers[0].kind(), Some(TriggerKind::Word));
    assert_eq!(rendered.triggers[0].value.trim(), "<tool_call>");
    let parser = Parser::new(&rendered.parser).unwrap();
    let text = "<think>\nhm\n</think>\n\nFine.<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";
    let message = parser.parse(text, false).unwrap();
    assert_eq!((message.reasoning.trim(), message.content.as_str()), ("hm", "Fine."));
    assert_eq!(message.tool_calls[0].name, "weather");
    assert_eq!(message.tool_calls[0].arguments, r#"{"city": "Rome"}"#);

    with_tools.tool_choice = Choice::Required;
    let rendered = template.render(with_tools).unwrap();
    assert!(!rendered.lazy && rendered.grammar.contains("root ::="));
}

#[test]
fn variables_do_not_replace_the_conversation() {
    let source = "{{ messages[0].content }}{{ x }}{{ 'none' if tools is none }}";
    let template = Template::new(source, "", "").unwrap();
    let variables = json!({"messages": [], "tools": [1], "x": "b"});
    let request = request(
        json!([{"role": "user", "content": "a"}]),
        json!([]),
        variables.as_object().unwrap(),
    );
    assert_eq!(template.render(request).unwrap().prompt, "abnone");
}

#[test]
fn thoughts_do_not_displace_an_answer() {
    // `common` takes this for a template that wants thoughts as a part of the content.
    let source = "{#[SYSTEM_PROMPT][TOOL_CALLS][ARGS]#}{% for m in messages %}<{{ m.content if m.content is string else \
                  m.content[0].text }}>{% endfor %}";
    let template = Template::new(source, "", "").unwrap();
    let variables = Map::new();
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "reasoning_content": "hm", "content": "b"},
        {"role": "user", "content": "c"},
    ]);
    let rendered = template.render(request(messages, json!([]), &variables)).unwrap();
    assert_eq!(rendered.prompt, "<a><b><c>");
}

#[test]
fn what_fails_says_why() {
    let variables = Map::new();
    assert!(Template::new("{% if %}", "", "").is_err());
    assert!(Template::new("", "", "").unwrap_err().0.contains("empty"));
    let refuses = Template::new(
        "{% if messages | length > 1 %}{{ raise_exception('only one') }}{% endif %}x",
        "",
        "",
    )
    .unwrap();
    let two = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    let message = refuses.render(request(two, json!([]), &variables)).unwrap_err().0;
    assert!(message.contains("only one"), "{message}");
    let bad = request(json!([{"role": "user"}]), json!([]), &variables);
    assert!(refuses.render(bad).is_err());
    assert!(schema_grammar(&json!({"type": "nothing"})).is_err());
    assert!(
        schema_grammar(&json!({"type": "integer"}))
            .unwrap()
            .contains("root ::=")
    );
}

/// Twice the limit that `generation::depth` rests on.
#[test]
fn brackets_fit_the_stack() {
    let variables = Map::new();
    let template = Template::new(TAGS, "", "").unwrap();
    let rendered = template
        .render(request(
            json!([{"role": "user", "content": "hi"}]),
            weather(),
            &variables,
        ))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    for bracket in ["[", "{\"a\":"] {
        let parser = Parser::new(&rendered.parser).unwrap();
        let text = format!(
            "<tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": {}",
            bracket.repeat(40_000)
        );
        let done = runtime.block_on(run(move || parser.parse(&text, true).is_ok()));
        assert!(done.is_ok());
    }
}

/// Ten times what `grammar::prepare_schema` allows.
#[test]
fn names_fit_the_stack() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let schema = json!({"type": "object", "properties": {("_".repeat(10_000)): {"type": "string"}}});
    let done = runtime.block_on(run(move || schema_grammar(&schema).is_ok()));
    assert_eq!(done, Ok(true));
}
