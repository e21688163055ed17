//! `--conversation`: how long the first token takes in the turns of a chat with tools.

use serde_json::{Value, json};

use super::super::Target;
use super::Part;
use crate::cli::benchmark::case::Case;
use crate::cli::benchmark::prompts::{seed, text};

pub(super) const COLUMNS: [(&str, &str); 4] = [
    ("prompt_tokens", "prompt tokens"),
    ("cached_tokens", "of them cached"),
    ("first_token_ms", "first token ms"),
    ("to_first_turn", "to the first turn"),
];

/// Room for tools, short messages and the template, beside the system prompt and the answers.
pub(super) const EXTRA_TOKENS: u32 = 600;

/// Characters of a message of the user.
const MESSAGE: usize = 120;

/// One conversation: its first turn, what usually comes after it, and another one with the same system prompt and tools.
pub(super) async fn measure(target: &mut Target, case: Case, run: u32) -> anyhow::Result<Vec<Part>> {
    let system = target
        .prompts
        .prompt(&target.server, case.prompt_tokens, seed(run, 0))
        .await?;
    let user = |number: u32| json!({"role": "user", "content": text(MESSAGE, seed(run, number))});
    let (tools, system) = (tools(), json!({"role": "system", "content": system}));

    let mut conversation = vec![system.clone(), user(1)];
    let (first, answer) = turn(target, "first turn", &conversation, &tools, case.generate).await?;
    // A model that called a tool or was cut off in its thoughts said nothing.
    let answer = if answer.is_empty() { "Go on.".to_owned() } else { answer };
    conversation.extend([json!({"role": "assistant", "content": answer}), user(2)]);
    let (second, _) = turn(target, "second turn", &conversation, &tools, case.generate).await?;
    let (again, _) = turn(target, "answered again", &conversation, &tools, case.generate).await?;
    conversation.pop();
    conversation.push(user(3));
    let (edited, _) = turn(target, "last message edited", &conversation, &tools, case.generate).await?;
    let (other, _) = turn(
        target,
        "new conversation, same system prompt",
        &[system, user(4)],
        &tools,
        case.generate,
    )
    .await?;

    let mut parts = vec![first, second, again, edited, other];
    let base = parts[0].values[2];
    for part in &mut parts[1..] {
        let ratio = part.values[2].zip(base).map(|(time, base)| time / base);
        part.values[3] = ratio;
    }
    Ok(parts)
}

/// One request, and what was answered.
async fn turn(
    target: &Target,
    name: &'static str,
    messages: &[Value],
    tools: &Value,
    tokens: u32,
) -> anyhow::Result<(Part, String)> {
    let reply = target.server.chat(messages, tools, tokens).await?;
    let values = vec![
        reply.usage.map(|usage| f64::from(usage.prompt_tokens)),
        reply.usage.map(|usage| f64::from(usage.cached_tokens())),
        Some(reply.stream.first_token.as_secs_f64() * 1e3),
        None,
    ];
    Ok((Part { name, values }, reply.content))
}

/// Two tools, as an assistant has them.
fn tools() -> Value {
    let tool = |name: &str, description: &str, parameters: Value| {
        json!({"type": "function", "function": {
            "name": name, "description": description,
            "parameters": {"type": "object", "properties": parameters, "required": ["city"]},
        }})
    };
    json!([
        tool(
            "get_weather",
            "Tells the weather of a city, now or on one of the next days.",
            json!({
                "city": {"type": "string", "description": "Name of the city"},
                "day": {"type": "string", "enum": ["today", "tomorrow"]},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            })
        ),
        tool(
            "find_events",
            "Lists concerts, markets and other events in a city.",
            json!({
                "city": {"type": "string", "description": "Name of the city"},
                "topic": {"type": "string", "description": "What the events are about"},
                "most": {"type": "integer", "minimum": 1, "maximum": 20},
            })
        ),
    ])
}
