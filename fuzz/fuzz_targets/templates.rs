//! Arbitrary conversations in templates of many styles, and arbitrary templates.
//!
//! The first byte says which template; then comes its text up to 0x1f, if it is one of the input. The rest makes the
//! conversation. Templates come with a model, and nothing bounds what they do: those that repeat and recurse are left out.
#![no_main]

mod model;

use std::sync::Arc;

use hearth::generation::{
    ChatBackend, ChatRequest, Conversation, Ending, LocalBackend, Message, Options, OutputFormat, ReasoningFormat,
    Role, ToolCall, ToolChoice,
};
use libfuzzer_sys::{Corpus, fuzz_target};
use model::{Bytes, Chooser, TEMPLATES, block_on, check, tool};
use serde_json::json;

fn conversation(bytes: &mut Bytes) -> Conversation {
    let roles = [Role::User, Role::Assistant, Role::System, Role::Tool, Role::Developer];
    let count = bytes.below(6) + 1;
    let message = |bytes: &mut Bytes| {
        let mut message = Message::new(bytes.of(&roles), bytes.text());
        if bytes.one_in(3) {
            message.reasoning = Some(bytes.text());
        }
        for _ in 0..bytes.below(5).saturating_sub(2) {
            let name = bytes.of(&["weather", "", "a b", "weather_map"]).to_owned();
            let arguments = if bytes.one_in(2) {
                bytes.json(3).to_string()
            } else {
                bytes.text()
            };
            message.tool_calls.push(ToolCall {
                id: bytes.text(),
                name,
                arguments,
            });
        }
        if bytes.one_in(4) {
            message.name = Some(bytes.text());
            message.tool_call_id = Some(bytes.text());
        }
        message
    };
    let messages: Vec<Message> = (0..count).map(|_| message(bytes)).collect();
    let tools = (0..bytes.below(3)).map(|n| {
        let parameters =
            json!({"type": "object", "properties": {"city": {"type": "string", "default": bytes.json(2)}}});
        tool(["weather", "weather_map"][n], parameters)
    });
    let tools = tools.collect();
    let variables = (0..bytes.below(3)).map(|_| {
        let name = bytes.of(&[
            "x",
            "messages",
            "reasoning_effort",
            "enable_thinking",
            "add_generation_prompt",
            "bos_token",
        ]);
        (name.to_owned(), bytes.json(3))
    });
    Conversation {
        variables: variables.collect(),
        tools,
        tool_choice: match bytes.below(5) {
            0 => ToolChoice::Required,
            1 => ToolChoice::None,
            2 => ToolChoice::Named("weather".into()),
            _ => ToolChoice::Auto,
        },
        parallel_tool_calls: [None, Some(true), Some(false)][bytes.below(3)],
        ending: if bytes.one_in(4) {
            Ending::Closed
        } else {
            Ending::of(&messages)
        },
        thinking: [None, Some(true), Some(false)][bytes.below(3)],
        reasoning_budget: bytes.one_in(4).then_some(10),
        reasoning_format: if bytes.one_in(4) {
            ReasoningFormat::InContent
        } else {
            ReasoningFormat::Apart
        },
        messages,
    }
}

/// Whether a template can be rendered in a moment, whatever it says: no large numbers, no recursion, no loop in a loop in a
/// loop, no texts that double again and again.
fn is_small(template: &str) -> bool {
    let (mut depth, mut deepest) = (0_usize, 0);
    for tag in template.split("{%").skip(1) {
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        if tag.starts_with("for") {
            depth += 1;
            deepest = deepest.max(depth);
        } else if tag.starts_with("endfor") {
            depth = depth.saturating_sub(1);
        }
    }
    let large = template
        .as_bytes()
        .windows(4)
        .any(|four| four.iter().all(u8::is_ascii_digit));
    let grows = deepest > 0 && template.contains("set") && template.matches(['~', '+', '*']).count() > 4;
    let recurses = template.contains("macro") || template.contains("recursive");
    template.len() < 4096 && deepest <= 2 && !large && !grows && !recurses && template.matches('*').count() < 3
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let [which, rest @ ..] = bytes else {
        return Corpus::Reject;
    };
    let cut = rest.iter().position(|byte| *byte == 0x1f);
    let (template, rest) = match cut {
        Some(cut) => match std::str::from_utf8(&rest[..cut]) {
            Ok(text) if is_small(text) => (text.to_owned(), &rest[cut + 1..]),
            _ => return Corpus::Reject,
        },
        None => (TEMPLATES[usize::from(*which) % TEMPLATES.len()].clone(), rest),
    };
    let mut bytes = Bytes(rest);
    let conversation = conversation(&mut bytes);
    let options = Options {
        format: if bytes.one_in(4) {
            OutputFormat::JsonObject
        } else {
            OutputFormat::Text
        },
        ..Options::default()
    };
    let backend = LocalBackend::new(Arc::new(Chooser::new(&template, bytes.0)));
    let outcome = block_on(async {
        backend
            .chat(ChatRequest { conversation, options })
            .await?
            .collect()
            .await
    });
    check(outcome);
    Corpus::Keep
});
