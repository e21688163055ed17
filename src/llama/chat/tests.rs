use serde_json::json;

use super::*;

/// In the style of Qwen3: thoughts in tags, calls as JSON in tags.
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
        json_schema: String::new(),
        grammar: "",
        variables,
    }
}

#[test]
fn probe() {
    let variables = Map::new();
    let template = Template::new(TAGS, "<s>", "</s>").unwrap();
    println!("{:?}", template.abilities());
    let weather = json!([{"type": "function", "function": {"name": "get_weather", "description": "d", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    let hello = json!([{"role": "user", "content": "hi"}]);
    for (tools, choice) in [
        (json!([]), Choice::Auto),
        (weather.clone(), Choice::Auto),
        (weather, Choice::Required),
    ] {
        let mut request = request(hello.clone(), tools, &variables);
        request.tool_choice = choice;
        let rendered = template.render(&request).unwrap();
        println!("{rendered:#?}");
        let parser = Parser::new(&rendered.parser).unwrap();
        let text = "<think>\nLet me see.\n</think>\n\nFine.<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";
        for cut in 0..=text.len() {
            println!("{:?} {:?}", &text[..cut], parser.parse(&text[..cut], true));
        }
        println!("{:?}", parser.parse(text, false));
        println!("{:?}", parser.parse("a<tool_call>{{{", false));
    }
}
