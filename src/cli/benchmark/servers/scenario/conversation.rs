//! `--conversation`: how long the first token takes in the turns of a chat with tools.

use std::time::Duration;

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
pub(super) const EXTRA_TOKENS: u32 = 1200;

/// Characters of a message of the user, or of thoughts.
const MESSAGE: usize = 120;
/// Calls of a tool before an answer.
const CALLS: u32 = 6;

/// Nobody reads an answer and asks again in less.
const READING: Duration = Duration::from_secs(1);

/// One conversation: its first turn, what usually comes after it, and another one with the same system prompt and tools.
pub(super) async fn measure(target: &mut Target, case: Case, run: u32) -> anyhow::Result<Vec<Part>> {
    let system = target
        .prompts
        .prompt(&target.server, case.prompt_tokens, seed(run, 0))
        .await?;
    let user = |number| user(run, number);
    let (tools, system) = (tools(), json!({"role": "system", "content": system}));

    let mut conversation = vec![system.clone(), user(1)];
    let (first, answer) = turn(target, "first turn", &conversation, &tools, case.generate).await?;
    conversation.extend([answer, user(2)]);
    let (second, _) = turn(target, "second turn", &conversation, &tools, case.generate).await?;
    let (again, _) = turn(target, "answered again", &conversation, &tools, case.generate).await?;
    conversation.pop();
    conversation.push(user(3));
    let (edited, _) = turn(target, "last message edited", &conversation, &tools, case.generate).await?;
    let (other, _) = turn(
        target,
        "new conversation, same system prompt",
        &[system.clone(), user(4)],
        &tools,
        case.generate,
    )
    .await?;
    let mut parts = vec![first, second, again, edited, other];
    parts.extend(after_calls(target, system, case, run).await?);
    let base = parts[0].values[2];
    for part in &mut parts[1..] {
        let ratio = part.values[2].zip(base).map(|(time, base)| time / base);
        part.values[3] = ratio;
    }
    Ok(parts)
}

/// A conversation in which a tool is called several times, each after a thought. Until the answer the client gives the thoughts
/// back; behind it the template leaves them out. No tools are offered: there is to be an answer.
async fn after_calls(target: &Target, system: Value, case: Case, run: u32) -> anyhow::Result<[Part; 2]> {
    let mut conversation = vec![
        system,
        json!({"role": "user", "content": "What is the weather in Rome?"}),
    ];
    for number in 5..5 + CALLS {
        // Mistral's templates want ids of nine characters.
        let id = format!("call{number:05}");
        let arguments = r#"{"city": "Rome"}"#;
        conversation.extend([
            json!({
                "role": "assistant",
                "content": null,
                "reasoning_content": text(MESSAGE, seed(run, number)),
                "tool_calls": [{"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}],
            }),
            json!({"role": "tool", "tool_call_id": id, "content": r#"{"temperature": 21, "sky": "sunny"}"#}),
        ]);
    }
    let (result, answer) = turn(
        target,
        "after six calls of a tool",
        &conversation,
        &Value::Null,
        case.generate,
    )
    .await?;
    conversation.extend([answer, user(run, 4)]);
    tokio::time::sleep(READING).await;
    let next = turn(
        target,
        "next question, a second later",
        &conversation,
        &Value::Null,
        case.generate,
    );
    Ok([result, next.await?.0])
}

fn user(run: u32, number: u32) -> Value {
    json!({"role": "user", "content": text(MESSAGE, seed(run, number))})
}

/// One request, and what was answered.
async fn turn(
    target: &Target,
    name: &'static str,
    messages: &[Value],
    tools: &Value,
    tokens: u32,
) -> anyhow::Result<(Part, Value)> {
    let reply = target.server.chat(messages, tools, tokens).await?;
    let values = vec![
        reply.usage.map(|usage| f64::from(usage.prompt_tokens)),
        reply.usage.map(|usage| f64::from(usage.cached_tokens())),
        Some(reply.stream.first_token.as_secs_f64() * 1e3),
        None,
    ];
    // A model that called a tool or was cut off in its thoughts said nothing.
    let said = if reply.content.is_empty() {
        "Go on."
    } else {
        &reply.content
    };
    Ok((Part { name, values }, json!({"role": "assistant", "content": said})))
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
