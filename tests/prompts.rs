//! Prompts that share a beginning with what a slot holds: how much is computed again, and that answers are the same.

mod common;

use common::Server;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn tools() -> Value {
    let tool = |name: &str, argument: &str, description: &str| {
        json!({"type": "function", "function": {"name": name, "description": description, "parameters": {
            "type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}}})
    };
    json!([
        tool("get_weather", "city", "Current weather in a city"),
        tool("get_quote", "symbol", "Latest price of a stock"),
        tool("search_news", "topic", "News about a topic"),
    ])
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

struct Answer {
    message: Value,
    prompt: u64,
    cached: u64,
}

fn ask(server: &Server, messages: &[Value], cache: bool) -> Answer {
    let body =
        json!({"messages": messages, "tools": tools(), "temperature": 0, "max_tokens": 200, "cache_prompt": cache});
    let (status, mut answer) = server.post(CHAT, &body);
    assert_eq!(status, 200, "{answer}");
    let usage = &answer["usage"];
    let (prompt, cached) = (
        &usage["prompt_tokens"],
        &usage["prompt_tokens_details"]["cached_tokens"],
    );
    let (prompt, cached) = (prompt.as_u64().unwrap(), cached.as_u64().unwrap());
    let mut message = answer["choices"][0]["message"].take();
    // Ids are made up anew.
    for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
        call["id"] = "c".into();
    }
    Answer {
        message,
        prompt,
        cached,
    }
}

/// A server that keeps prompts, and one that computes each anew.
struct Pair {
    server: Server,
    reference: Server,
}

impl Pair {
    fn start(extra: &str) -> Self {
        Self {
            server: Server::start(extra),
            reference: Server::start("parallel = 1"),
        }
    }

    /// The answer, which must be that of a slot that holds nothing, and how many tokens of the prompt were computed for it.
    fn ask(&self, messages: &[Value]) -> (Value, u64) {
        let answer = ask(&self.server, messages, true);
        assert_eq!(
            answer.message,
            ask(&self.reference, messages, false).message,
            "{messages:?}"
        );
        (answer.message, answer.prompt - answer.cached)
    }
}

fn result(text: &str) -> Value {
    json!({"role": "tool", "tool_call_id": "c", "content": text})
}

#[test]
fn turns_begin_where_prompts_part() {
    let pair = Pair::start("parallel = 1");
    let system = json!({"role": "system", "content": "You are a helpful assistant. Answer briefly. ".repeat(8)});
    let mut turn = vec![system.clone(), user("What is the weather in Rome?")];
    let (answer, whole) = pair.ask(&turn);
    assert_eq!(answer["tool_calls"][0]["function"]["name"], "get_weather");
    // The result of the call goes on with all that is there; the next question but for the thoughts.
    for next in [result("{\"temperature\": 21}"), user("And in Oslo?")] {
        let (answer, _) = pair.ask(&turn);
        turn.extend([answer, next]);
        let (_, computed) = pair.ask(&turn);
        assert!(computed < whole / 4, "{computed} of {whole}");
    }
    // Asked again, asked otherwise, and asked in another conversation with the same beginning.
    let (_, computed) = pair.ask(&turn);
    assert_eq!(computed, 0);
    let edited = [&turn[..turn.len() - 1], &[user("And in Paris?")]].concat();
    let (_, computed) = pair.ask(&edited);
    assert!(computed < 30, "{computed}");
    let (_, computed) = pair.ask(&[system.clone(), user("What is the price of ABC?")]);
    assert!(computed < 40, "{computed}");
    // Also where most of what the slot holds is lost, and kept.
    let begin = |question: String| [system.clone(), user(&question)];
    pair.ask(&begin("What is the weather in Rome? ".repeat(100)));
    let (_, computed) = pair.ask(&begin("What is the price of DEF?".into()));
    assert!(computed < 40, "{computed}");
}

/// Nothing is computed for the first token of a prompt that was asked before; it is chosen as ever, for several choices, by chance,
/// within a grammar, and with what else was likely.
#[test]
fn the_same_prompt_again_has_the_same_answers() {
    let server = Server::start("parallel = 4");
    let form = json!({"type": "json_schema", "json_schema": {"name": "f", "schema": {
        "type": "object", "properties": {"bees": {"type": "boolean"}}, "required": ["bees"]}}});
    for (choices, format) in [(1, json!({"type": "text"})), (2, json!({"type": "text"})), (3, form)] {
        let messages = [
            json!({"role": "system", "content": format!("Give {choices} answers. ").repeat(12)}),
            user("Any news about bees?"),
        ];
        let body = json!({
            "messages": messages, "n": choices, "response_format": format, "seed": 11, "temperature": 1.0, "max_tokens": 20,
            "logprobs": true, "top_logprobs": 2,
        });
        let ask = || {
            let (status, answer) = server.post(CHAT, &body);
            assert_eq!(status, 200, "{answer}");
            let usage = &answer["usage"];
            let cached = usage["prompt_tokens_details"]["cached_tokens"].clone();
            (usage["prompt_tokens"] == cached, answer["choices"].clone())
        };
        let (first, again) = (ask(), ask());
        assert_eq!((first.0, again.0), (false, true), "{choices}");
        for (choice, same) in first.1.as_array().unwrap().iter().zip(again.1.as_array().unwrap()) {
            assert_eq!(choice["message"], same["message"]);
            let likely = |choice: &Value| {
                choice["logprobs"]["content"][0]["top_logprobs"][1]["logprob"]
                    .as_f64()
                    .unwrap()
            };
            assert!((likely(choice) - likely(same)).abs() < 1e-6);
        }
    }
}

/// Within a long message there are states, too: where the tools behind the system prompt are others, or a document ends otherwise.
#[test]
fn long_messages_are_not_computed_as_a_whole() {
    let pair = Pair::start("parallel = 1");
    let system = json!({"role": "system", "content": "You are a helpful assistant. Answer briefly. ".repeat(150)});
    let (_, whole) = pair.ask(&[system.clone(), user("What is 12 + 30?")]);
    assert!(whole > 1300, "{whole}");
    let other =
        json!({"role": "system", "content": format!("{} Today is Monday.", system["content"].as_str().unwrap())});
    let (_, computed) = pair.ask(&[other, user("What is 12 + 30?")]);
    assert!(computed < whole / 2 + 100, "{computed} of {whole}");
}

/// Whose slot was given to another conversation goes on from what was kept.
#[test]
fn conversations_come_back_to_a_slot() {
    let server = Server::start("parallel = 1");
    for model in ["demo-reasoner", "demo-narrator"] {
        let ask = |messages: &[Value], cache: bool| {
            let body = json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 20, "cache_prompt": cache});
            let (status, answer) = server.post(CHAT, &body);
            assert_eq!(status, 200, "{answer}");
            let usage = &answer["usage"];
            let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
            let text = answer["choices"][0]["message"]["content"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            (text, usage["prompt_tokens"].as_u64().unwrap(), cached)
        };
        let begin = |name: &str| {
            let system = format!("You are {name}. ").repeat(20);
            vec![json!({"role": "system", "content": system}), user("Hello!")]
        };
        let (mut first, other) = (begin("Mira"), begin("Tom"));
        let (answer, whole, _) = ask(&first, true);
        let (_, _, cached) = ask(&other, true);
        assert!(cached < 40, "{model}: {cached}");
        first.extend([json!({"role": "assistant", "content": answer}), user("Who are you?")]);
        let (text, prompt, cached) = ask(&first, true);
        assert!(cached > whole * 3 / 4, "{model}: {cached} of {prompt}");
        assert!(server.metric("hearth_prompt_cache_bytes", model) > 1000.0);
        assert_eq!(text, ask(&first, false).0, "{model}");
    }
}

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// Conversations that go on, are asked again, edited and cut, by turns in two slots, with room for few states: always the
/// answers of a server that computes each prompt anew. `HEARTH_TEST_ROUNDS` asks for more of them.
#[test]
fn whatever_was_kept_answers_are_the_same() {
    let rounds = std::env::var("HEARTH_TEST_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    let pair = Pair::start("parallel = 2");
    let mut numbers = Numbers(7);
    // None that leaves open what is meant: of two answers that are as likely, rounding chooses.
    let questions = [
        "What is the weather in Rome?",
        "What is the weather in Oslo?",
        "What is the price of ABC?",
        "What is 12 + 30?",
        "Hello!",
        "Any news about bees?",
        "Who are you?",
    ];
    let begin = |numbers: &mut Numbers| {
        let system = ["Answer briefly.", "You are a helpful assistant. Today is Monday."][numbers.below(2)];
        vec![json!({"role": "system", "content": system.repeat(6)})]
    };
    let mut conversations: Vec<Vec<Value>> = (0..5).map(|_| begin(&mut numbers)).collect();
    for _ in 0..rounds {
        let which = numbers.below(conversations.len());
        let question = user(questions[numbers.below(questions.len())]);
        let mut turns = conversations[which].clone();
        match numbers.below(8) {
            0 => turns = begin(&mut numbers),
            // What was asked last is asked otherwise; the answer is at the end.
            1 | 2 if turns.len() > 2 => turns.truncate(turns.len() - 2),
            3 => turns.truncate(1 + (turns.len() - 1) / 4 * 2),
            _ => {}
        }
        if turns.len() > 12 {
            turns.truncate(1);
        }
        turns.push(question);
        let (answer, _) = pair.ask(&turns);
        turns.push(match answer["tool_calls"].is_array() {
            // As if nothing had been called.
            true => json!({"role": "assistant", "content": "It is fine."}),
            false => answer,
        });
        conversations[which] = turns;
    }
}

/// However many tokens are computed in one pass, the answer is the same, and so is what a slot takes over.
#[test]
fn passes_may_be_small_or_large() {
    let servers = ["ubatch = 64", "ubatch = 512", "ubatch = 2048"].map(Server::start);
    let system = json!({"role": "system", "content": "You are a helpful assistant. Answer briefly. ".repeat(100)});
    let answers = servers.each_ref().map(|server| {
        let answer = ask(server, &[system.clone(), user("What is the weather in Rome?")], true);
        assert!(answer.prompt > 700, "{}", answer.prompt);
        let again = ask(server, &[system.clone(), user("What is the weather in Oslo?")], true);
        assert!(again.cached > 700, "{}", again.cached);
        (answer.message, again.message)
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
