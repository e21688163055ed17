//! Our requests in OpenAI's form, with the extensions of vLLM, SGLang and llama-server.

use serde_json::{Map, Value, json};

use crate::config::UpstreamConfig;
use crate::engine::EngineError;
use crate::generation::{
    BiasTarget, ChatRequest, Conversation, Ending, GenerationError, Message, Options, OutputFormat, Role, Segment,
    TextRequest, ToolChoice,
};
use crate::sampling::SamplingOverrides;

/// What OpenAI's own API takes of the sampling parameters.
const PLAIN: [&str; 6] = [
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "max_tokens",
];

/// A request that can be sent to any replica.
#[derive(Debug)]
pub(super) enum Request {
    Chat(ChatRequest),
    Text(TextRequest),
}

impl Request {
    /// The path below `base_url`.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chat/completions",
            Self::Text(_) => "completions",
        }
    }

    fn options(&self) -> &Options {
        match self {
            Self::Chat(request) => &request.options,
            Self::Text(request) => &request.options,
        }
    }

    /// Choices of the answer.
    pub(super) fn choices(&self) -> usize {
        let prompts = match self {
            Self::Chat(_) => 1,
            Self::Text(request) => request.prompts.len(),
        };
        prompts * self.options().choices as usize
    }

    /// Refuses what no server can do for us.
    pub(super) fn check(&self, model: &str) -> Result<(), GenerationError> {
        let not_supported = |what: &str| {
            let message = format!("model `{model}` is computed by another server: {what}");
            Err(EngineError::NotSupported { message }.into())
        };
        if self.options().routed_experts {
            return not_supported("its experts are not told");
        }
        let Self::Text(request) = self else { return Ok(()) };
        if request.prompts.is_empty() {
            return Err(GenerationError::InvalidRequest {
                field: "prompt",
                message: "there is no prompt".into(),
            });
        }
        let whole = request.prompts.iter().all(|prompt| prompt.0.len() == 1);
        let segments = request.prompts.iter().flat_map(|prompt| &prompt.0);
        let texts = segments.filter(|segment| matches!(segment, Segment::Text(_))).count();
        if !whole || (texts > 0 && texts < request.prompts.len()) {
            return not_supported("its prompts are texts or lists of token ids, not both");
        }
        Ok(())
    }

    /// The body for a replica; `defaults` are the model's own.
    pub(super) fn body(&self, name: &str, to: &UpstreamConfig, defaults: &SamplingOverrides) -> Vec<u8> {
        let mut body = Map::new();
        let mut put = |field: &str, value: Value| body.insert(field.to_owned(), value);
        put("model", to.model.as_deref().unwrap_or(name).into());
        match self {
            Self::Chat(request) => conversation(&request.conversation, to.extensions, &mut put),
            Self::Text(request) => {
                let mut prompts = request.prompts.iter().map(|prompt| match prompt.0.first() {
                    Some(Segment::Tokens(tokens)) => json!(tokens),
                    Some(Segment::Text(text)) => json!(text),
                    None => json!(""),
                });
                let prompt = if prompts.len() == 1 {
                    prompts.next().unwrap_or_default()
                } else {
                    prompts.collect()
                };
                put("prompt", prompt);
            }
        }
        self.put_options(to.extensions, defaults, &mut put);
        put("stream", true.into());
        put("stream_options", json!({"include_usage": true}));
        // Writing JSON values to memory cannot fail.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    fn put_options(
        &self,
        extensions: bool,
        defaults: &SamplingOverrides,
        put: &mut impl FnMut(&str, Value) -> Option<Value>,
    ) {
        let options = self.options();
        let is_chat = matches!(self, Self::Chat(_));
        let sampling = serde_json::to_value(options.sampling.clone().or(defaults)).unwrap_or_default();
        for (name, value) in sampling.as_object().into_iter().flatten() {
            match name.as_str() {
                "max_tokens" if is_chat && !extensions => put("max_completion_tokens", value.clone()),
                plain if PLAIN.contains(&plain) => put(plain, value.clone()),
                _ if !extensions => None,
                // "All" is 0 here and -1 there.
                "top_k" if *value == 0 => put("top_k", (-1).into()),
                // Both names are in use.
                "repeat_penalty" => {
                    put("repetition_penalty", value.clone());
                    put("repeat_penalty", value.clone())
                }
                other => put(other, value.clone()),
            };
        }
        if !options.stop.is_empty() {
            put("stop", options.stop.as_slice().into());
        }
        if !options.logit_bias.is_empty() {
            put("logit_bias", biases(&options.logit_bias));
        }
        if options.choices > 1 {
            put("n", options.choices.into());
        }
        match (options.logprobs, is_chat) {
            (Some(top), true) => {
                put("logprobs", true.into());
                put("top_logprobs", top.into());
            }
            (Some(top), false) => {
                put("logprobs", top.into());
            }
            (None, _) => {}
        }
        match &options.format {
            OutputFormat::Text => {}
            OutputFormat::JsonObject => {
                put("response_format", json!({"type": "json_object"}));
            }
            OutputFormat::JsonSchema { schema, strict } => {
                let schema = json!({"name": "answer", "schema": schema, "strict": strict});
                put("response_format", json!({"type": "json_schema", "json_schema": schema}));
            }
            OutputFormat::Grammar(grammar) => {
                put("grammar", grammar.as_str().into());
            }
        }
        if !extensions {
            return;
        }
        if !options.stop_tokens.is_empty() {
            put("stop_token_ids", options.stop_tokens.as_slice().into());
        }
        // Said only where it is not what servers do anyway.
        for (field, says, value) in [
            ("ignore_eos", options.ignore_eos, true),
            ("cache_prompt", !options.cache_prompt, false),
            ("special", options.special, true),
            ("skip_special_tokens", options.special, false),
            ("return_progress", options.progress, true),
        ] {
            if says {
                put(field, value.into());
            }
        }
    }
}

fn biases(biases: &[(BiasTarget, f32)]) -> Value {
    let entries = biases.iter().map(|(target, bias)| {
        let target = match target {
            BiasTarget::Token(token) => token.to_string(),
            BiasTarget::Text(text) => text.clone(),
        };
        // The most that OpenAI's API takes; JSON has no infinity.
        (target, Value::from(bias.clamp(-100.0, 100.0)))
    });
    Value::Object(entries.collect())
}

fn conversation(of: &Conversation, extensions: bool, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    let messages = of.messages.iter().map(|sent| message(sent, extensions));
    put("messages", messages.collect());
    if !of.tools.is_empty() {
        let tools = of.tools.iter().map(|tool| {
            let mut function = json!({"name": tool.name, "parameters": tool.parameters});
            if !tool.description.is_empty() {
                function["description"] = tool.description.as_str().into();
            }
            json!({"type": "function", "function": function})
        });
        put("tools", tools.collect());
        match &of.tool_choice {
            ToolChoice::Auto => None,
            ToolChoice::None => put("tool_choice", "none".into()),
            ToolChoice::Required => put("tool_choice", "required".into()),
            ToolChoice::Named(name) => put("tool_choice", json!({"type": "function", "function": {"name": name}})),
        };
        if let Some(parallel) = of.parallel_tool_calls {
            put("parallel_tool_calls", parallel.into());
        }
    }
    let mut variables = of.variables.clone();
    if let Some(effort) = variables.shift_remove("reasoning_effort") {
        put("reasoning_effort", effort);
    }
    if !extensions {
        return;
    }
    if let Some(thinks) = of.thinking {
        variables.insert("enable_thinking".to_owned(), thinks.into());
    }
    if !variables.is_empty() {
        put("chat_template_kwargs", variables.into());
    }
    if let Some(budget) = of.reasoning_budget {
        put("reasoning_budget_tokens", budget.into());
    }
    if of.reasoning_format == crate::generation::ReasoningFormat::InContent {
        put("reasoning_format", "none".into());
    }
    // What servers do where nothing is said differs only behind a message of the assistant.
    let by_assistant = of.messages.last().is_some_and(|last| last.role == Role::Assistant);
    match of.ending {
        Ending::Answer if !by_assistant => {}
        Ending::Answer => {
            put("add_generation_prompt", true.into());
            put("continue_final_message", false.into());
        }
        Ending::FinalMessage => {
            put("add_generation_prompt", false.into());
            put("continue_final_message", true.into());
        }
        Ending::Closed => {
            put("add_generation_prompt", false.into());
        }
    }
}

fn message(message: &Message, extensions: bool) -> Value {
    let role = match message.role {
        // Every server knows this word.
        Role::Developer => Role::System,
        role => role,
    };
    let mut out = json!({"role": role.as_str(), "content": message.content});
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        out["tool_calls"] = calls.collect();
        if message.content.is_empty() {
            out["content"] = Value::Null;
        }
    }
    if let Some(thought) = message.reasoning.as_deref().filter(|_| extensions) {
        // SGLang, llama-server and DeepSeek read the first, vLLM the second.
        out["reasoning_content"] = thought.into();
        out["reasoning"] = thought.into();
    }
    for (field, value) in [("name", &message.name), ("tool_call_id", &message.tool_call_id)] {
        if let Some(value) = value {
            out[field] = value.as_str().into();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Overrides, load_text};
    use crate::generation::{Tool, ToolCall};

    fn server(lines: &str) -> UpstreamConfig {
        let text = format!(
            "[[model]]\nname = \"m\"\nupstream = {{ base_url = \"http://box/v1\", model = \"there\", {lines} }}\n"
        );
        let loaded = load_text(&text, Path::new("m.toml"), &Overrides::default(), &Environment::new()).unwrap();
        loaded.config.models[0].upstream[0].clone()
    }

    fn body(request: Request, lines: &str) -> Value {
        let defaults = SamplingOverrides {
            temperature: Some(0.5),
            top_k: Some(0),
            ..SamplingOverrides::default()
        };
        serde_json::from_slice(&request.body("m", &server(lines), &defaults)).unwrap()
    }

    fn request() -> ChatRequest {
        let mut answer = Message::new(Role::Assistant, "");
        answer.reasoning = Some("so".into());
        answer.tool_calls.push(ToolCall {
            id: "c".into(),
            name: "f".into(),
            arguments: "{}".into(),
        });
        let mut result = Message::new(Role::Tool, "7");
        result.tool_call_id = Some("c".into());
        let variables = json!({"reasoning_effort": "low", "x": 1});
        ChatRequest {
            conversation: Conversation {
                messages: vec![Message::new(Role::Developer, "be kind"), answer, result],
                tools: vec![Tool {
                    name: "f".into(),
                    description: String::new(),
                    parameters: json!({}),
                }],
                tool_choice: ToolChoice::Named("f".into()),
                thinking: Some(false),
                variables: variables.as_object().unwrap().clone(),
                ..Conversation::default()
            },
            options: Options {
                sampling: SamplingOverrides {
                    repeat_penalty: Some(1.5),
                    max_tokens: Some(9),
                    ..SamplingOverrides::default()
                },
                logit_bias: vec![(BiasTarget::Token(5), f32::NEG_INFINITY)],
                stop: vec!["x".into()],
                choices: 2,
                logprobs: Some(3),
                format: OutputFormat::JsonObject,
                ..Options::default()
            },
        }
    }

    #[test]
    fn all_is_said_in_the_fields_that_servers_know() {
        let expect = json!({
            "model": "there",
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "assistant", "content": null, "reasoning_content": "so", "reasoning": "so",
                 "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "content": "7", "tool_call_id": "c"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "reasoning_effort": "low",
            "chat_template_kwargs": {"x": 1, "enable_thinking": false},
            "temperature": 0.5, "top_k": -1, "repetition_penalty": 1.5, "repeat_penalty": 1.5, "max_tokens": 9,
            "stop": ["x"], "logit_bias": {"5": -100.0}, "n": 2, "logprobs": true, "top_logprobs": 3,
            "response_format": {"type": "json_object"},
            "stream": true, "stream_options": {"include_usage": true},
        });
        assert_eq!(body(Request::Chat(request()), ""), expect);
    }

    #[test]
    fn strict_servers_get_only_what_openai_has() {
        let body = body(Request::Chat(request()), "extensions = false");
        for field in [
            "top_k",
            "repeat_penalty",
            "repetition_penalty",
            "chat_template_kwargs",
            "max_tokens",
        ] {
            assert!(body[field].is_null(), "{field}");
        }
        assert_eq!(
            (&body["max_completion_tokens"], &body["temperature"]),
            (&json!(9), &json!(0.5))
        );
        assert!(body["messages"][1].get("reasoning_content").is_none());
    }

    #[test]
    fn texts_are_strings_or_tokens() {
        let request = |prompts: Vec<Vec<Segment>>| {
            Request::Text(TextRequest {
                prompts: prompts.into_iter().map(crate::generation::TextPrompt).collect(),
                options: Options::default(),
            })
        };
        let text = |text: &str| Segment::Text(text.into());
        let one = request(vec![vec![text("a")]]);
        assert_eq!((one.choices(), one.path()), (1, "completions"));
        assert_eq!(body(one, "")["prompt"], "a");
        assert_eq!(
            body(request(vec![vec![text("a")], vec![text("b")]]), "")["prompt"],
            json!(["a", "b"])
        );
        let tokens = request(vec![vec![Segment::Tokens(vec![1, 2])]]);
        assert!(tokens.check("m").is_ok());
        assert_eq!(body(tokens, "")["prompt"], json!([1, 2]));
        for mixed in [
            vec![vec![text("a"), Segment::Tokens(vec![1])]],
            vec![vec![text("a")], vec![Segment::Tokens(vec![1])]],
            vec![],
        ] {
            assert!(request(mixed).check("m").is_err());
        }
    }

    #[test]
    fn endings_are_told_where_servers_would_guess() {
        let body = |ending| {
            let mut request = request();
            request
                .conversation
                .messages
                .push(Message::new(Role::Assistant, "Once"));
            request.conversation.ending = ending;
            let body = body(Request::Chat(request), "");
            (
                body["add_generation_prompt"].clone(),
                body["continue_final_message"].clone(),
            )
        };
        assert_eq!(body(Ending::Answer), (json!(true), json!(false)));
        assert_eq!(body(Ending::FinalMessage), (json!(false), json!(true)));
        assert_eq!(body(Ending::Closed), (json!(false), Value::Null));
    }
}
