"""Requests that both servers get: good and bad ones, whole and streamed, to every endpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    name: str
    method: str
    path: str
    body: bytes | None = None
    ordered: bool = True
    """Whether the order of events is the same each time."""
    exact: bool = False
    """Whether the whole answer is the same each time."""
    fills_in: bool = False
    """Whether it needs the model that can fill in text."""


CASES: list[Case] = []


def add(name: str, path: str, body: Any = None, method: str | None = None, **more: Any) -> None:
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    CASES.append(Case(name, method or ("GET" if body is None else "POST"), path, body, **more))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
GREEDY = {"temperature": 0, "seed": 1}
LONG = "word " * 3000

# What the server is.
for path in ("/health", "/v1/health", "/models", "/v1/models", "/props", "/slots", "/slots?fail_on_no_slot=1", "/lora-adapters", "/metrics"):
    add(f"get {path}", path)
for path in ("/nothing", "/v1/nothing", "/completion", "/tokenize", "/v1/chat/completions"):
    add(f"get {path}", path)
add("post /props", "/props", {})
add("delete /props", "/props", method="DELETE")
add("post /models", "/models", {})
add("post /health", "/health", {})
for action in ("save", "restore", "erase", "fly"):
    add(f"slot {action}", f"/slots/0?action={action}", {"filename": "x"})
add("slot unknown", "/slots/9?action=save", {"filename": "x"})
add("slot no number", "/slots/x?action=save", {"filename": "x"})
add("slot no file", "/slots/0?action=restore", {"filename": "y"})
add("slot elsewhere", "/slots/0?action=save", {"filename": "../x"})
add("slot no name", "/slots/0?action=save", {})
add("set adapters", "/lora-adapters", [{"id": 0, "scale": 1.0}])

# Tokens.
for name, body in {
    "text": {"content": "Hello, world"},
    "empty": {"content": ""},
    "none": {},
    "umlaut": {"content": "Grüße 🦙"},
    "special": {"content": "<|im_start|>user", "add_special": True},
    "special as text": {"content": "<|im_start|>user", "parse_special": False},
    "pieces": {"content": "Grüße 🦙", "with_pieces": True},
    "mixed": {"content": ["Hello", 5, "world"]},
    "ids": {"content": [1, 2, 3]},
}.items():
    add(f"tokenize {name}", "/tokenize", body, exact=True)
for name, body in {"number": {"content": 5}, "object": {"content": {}}, "null": {"content": None}, "flag": {"content": "a", "with_pieces": "x"}}.items():
    add(f"tokenize bad {name}", "/tokenize", body)
for name, body in {"ids": {"tokens": [72, 101, 300]}, "empty": {"tokens": []}, "none": {}}.items():
    add(f"detokenize {name}", "/detokenize", body, exact=True)
for name, body in {"text": {"tokens": "x"}, "unknown": {"tokens": [99999]}, "negative": {"tokens": [-1]}, "texts": {"tokens": ["a"]}}.items():
    add(f"detokenize bad {name}", "/detokenize", body)

# Templates.
CONVERSATIONS = {
    "user": {"messages": [user("hi")]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, user("hi")]},
    "turns": {"messages": [user("hi"), {"role": "assistant", "content": "hello"}, user("bye")]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
    "tools": {"messages": [user("hi")], "tools": [TOOL]},
    "result": {
        "messages": [
            user("weather?"),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        "tools": [TOOL],
    },
    "closed": {"messages": [user("hi")], "add_generation_prompt": False},
    "prefilled": {"messages": [user("hi"), {"role": "assistant", "content": "I think"}]},
    "no thinking": {"messages": [user("hi")], "chat_template_kwargs": {"enable_thinking": False}},
}
for name, body in CONVERSATIONS.items():
    add(f"template {name}", "/apply-template", body, exact=True)
    add(f"count {name}", "/chat/completions/input_tokens", body, exact=True)
add("count at v1", "/v1/chat/completions/input_tokens", CONVERSATIONS["user"], exact=True)
BAD_MESSAGES = {
    "none": {},
    "null": {"messages": None},
    "text": {"messages": "hi"},
    "number": {"messages": [5]},
    "object": {"messages": [{}]},
    "role": {"messages": [{"role": 5, "content": "x"}]},
    "content": {"messages": [{"role": "user", "content": 5}]},
    "image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    "part": {"messages": [{"role": "user", "content": [{"type": "nonsense"}]}]},
}
for name, body in BAD_MESSAGES.items():
    add(f"template bad {name}", "/apply-template", body)
    add(f"chat bad {name}", "/chat/completions", body)
add("count bad", "/chat/completions/input_tokens", {"messages": 5})

# Bodies.
for path in ("/completion", "/v1/completions", "/chat/completions", "/v1/chat/completions", "/tokenize", "/apply-template", "/infill"):
    add(f"no JSON to {path}", path, b"nonsense")
    add(f"a list to {path}", path, [])
    add(f"nothing to {path}", path, b"")

# Texts.
COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "Hello", "n_predict": 4},
    "max_tokens": {"prompt": "Hello", "max_tokens": 4},
    "nothing to predict": {"prompt": "Hello", "n_predict": 0},
    "tokens": {"prompt": [72, 101, 108], "n_predict": 4},
    "mixed": {"prompt": [72, "ello", 32], "n_predict": 4},
    "object": {"prompt": {"prompt_string": "Hello"}, "n_predict": 4},
    "empty": {"prompt": "", "n_predict": 4},
    "several": {"prompt": ["Hello", "Bye"], "n_predict": 4},
    "several forms": {"prompt": ["Hello", [72, 101], [72, "e"], {"prompt_string": "x"}], "n_predict": 4},
    "two answers": {"prompt": "Hello", "n_predict": 4, "n": 2},
    "two answers, n_cmpl": {"prompt": "Hello", "n_predict": 4, "n_cmpl": 2},
    "stop": {"prompt": "1 2 3 4 5 1 2 3 4 5 1 2 3", "n_predict": 40, "stop": ["4"]},
    "stop text": {"prompt": "1 2 3 4 5 1 2 3 4 5 1 2 3", "n_predict": 40, "stop": "4"},
    "tokens wanted": {"prompt": "Hello", "n_predict": 4, "return_tokens": True},
    "fields wanted": {"prompt": "Hello", "n_predict": 4, "response_fields": ["content", "generation_settings/n_predict", "nothing"]},
    "timings": {"prompt": "Hello", "n_predict": 4, "timings_per_token": True},
    "progress": {"prompt": "Hello " * 40, "n_predict": 4, "return_progress": True, "cache_prompt": False},
    "probabilities": {"prompt": "Hello", "n_predict": 4, "n_probs": 3},
    "probabilities, logprobs": {"prompt": "Hello", "n_predict": 4, "logprobs": 2},
    "probabilities after sampling": {"prompt": "Hello", "n_predict": 4, "n_probs": 3, "post_sampling_probs": True},
    "grammar": {"prompt": "Hello", "n_predict": 8, "grammar": 'root ::= "ab" "c"'},
    "schema": {"prompt": "Hello", "n_predict": 64, "json_schema": SCHEMA},
    "empty schema": {"prompt": "Hello", "n_predict": 16, "json_schema": {}},
    "bias object": {"prompt": "Hello", "n_predict": 4, "logit_bias": {"72": 2, "Bye": -1}},
    "bias list": {"prompt": "Hello", "n_predict": 4, "logit_bias": [[72, 2], ["Bye", False]]},
    "ignored end": {"prompt": "Hello", "n_predict": 4, "ignore_eos": True},
    "indent": {"prompt": "def f():\n  a\n", "n_predict": 24, "n_indent": 2},
    "time": {"prompt": "Hello", "n_predict": 24, "t_max_predict_ms": 1},
    "slot": {"prompt": "Hello", "n_predict": 4, "id_slot": 0},
    "no such slot": {"prompt": "Hello", "n_predict": 4, "id_slot": 9},
    "uncached": {"prompt": "Hello", "n_predict": 4, "cache_prompt": False},
    "kept": {"prompt": "Hello", "n_predict": 4, "n_keep": -1, "n_discard": 3},
    "no ping": {"prompt": "Hello", "n_predict": 4, "sse_ping_interval": -1},
    "samplers": {"prompt": "Hello", "n_predict": 4, "samplers": ["top_k", "temperature"]},
    "sampler letters": {"prompt": "Hello", "n_predict": 4, "samplers": "kpt"},
    "all numbers": {
        "prompt": "Hello", "n_predict": 4, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.9, "repeat_penalty": 1.1,
        "repeat_last_n": 32, "presence_penalty": 0.1, "frequency_penalty": 0.1, "dry_multiplier": 0.5, "dry_base": 1.5,
        "dry_allowed_length": 3, "dry_penalty_last_n": 64, "dry_sequence_breakers": ["\n"], "xtc_probability": 0.1,
        "xtc_threshold": 0.2, "top_n_sigma": 2, "dynatemp_range": 0.1, "dynatemp_exponent": 1.1,
    },
    "out of range": {"prompt": "Hello", "n_predict": 4, "top_p": 1.5, "min_p": -1, "xtc_probability": 2},
    "negative temperature": {"prompt": "Hello", "n_predict": 4, "temperature": -1},
    "unknown field": {"prompt": "Hello", "n_predict": 4, "made_up": True},
    "nulls": {"prompt": "Hello", "n_predict": 4, "top_k": 1, "temperature": None, "stop": None, "grammar": None, "seed": None},
    "mirostat": {"prompt": "Hello", "n_predict": 4, "mirostat": 2},
    "least candidates": {"prompt": "Hello", "n_predict": 4, "min_keep": 2},
    "full context": {"prompt": [72] * 2030, "n_predict": -1, "ignore_eos": True},
}  # fmt: skip
UNORDERED = {"several", "several forms", "two answers", "two answers, n_cmpl"}
for name, body in COMPLETIONS.items():
    body = {**GREEDY, **body}
    add(f"completion {name}", "/completion", body)
    add(f"completion {name}, streamed", "/completion", {**body, "stream": True}, ordered=name not in UNORDERED)
for name in ("text", "stop", "probabilities"):
    add(f"completions {name}", "/completions", {**GREEDY, **COMPLETIONS[name]})
BAD_COMPLETIONS: dict[str, dict[str, Any]] = {
    "no prompt": {"n_predict": 4},
    "number": {"prompt": 5},
    "null": {"prompt": None},
    "empty list": {"prompt": []},
    "list of null": {"prompt": [None]},
    "object": {"prompt": {"text": "x"}},
    "image": {"prompt": {"prompt_string": "x", "multimodal_data": ["AAAA"]}},
    "unknown token": {"prompt": [99999]},
    "negative token": {"prompt": [-5]},
    "too long": {"prompt": LONG},
    "too long, streamed": {"prompt": LONG, "stream": True},
    "n_predict text": {"prompt": "a", "n_predict": "x"},
    "n_predict -2": {"prompt": "a", "n_predict": -2},
    "temperature text": {"prompt": "a", "temperature": "hot"},
    "n 0": {"prompt": "a", "n": 0},
    "n 3": {"prompt": "a", "n": 3},
    "n_indent -1": {"prompt": "a", "n_indent": -1},
    "stop number": {"prompt": "a", "n_predict": 2, "stop": 5},
    "stream text": {"prompt": "a", "n_predict": 2, "stream": "yes"},
    "grammar": {"prompt": "a", "grammar": "root ::= ("},
    "grammar type": {"prompt": "a", "grammar": 5},
    "schema": {"prompt": "a", "json_schema": {"type": "nonsense"}},
    "breakers": {"prompt": "a", "dry_sequence_breakers": []},
    "adapters": {"prompt": "a", "lora": "x"},
    "samplers": {"prompt": "a", "n_predict": 2, "samplers": ["magic"]},
    "bias": {"prompt": "a", "n_predict": 2, "logit_bias": "x"},
    "bias pair": {"prompt": "a", "n_predict": 2, "logit_bias": [[1]]},
}
for name, body in BAD_COMPLETIONS.items():
    add(f"completion bad {name}", "/completion", body)
for name in ("no prompt", "number", "too long", "too long, streamed", "unknown token", "grammar", "temperature text"):
    add(f"v1 completion bad {name}", "/v1/completions", BAD_COMPLETIONS[name])
V1_COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "Hello", "max_tokens": 4},
    "several": {"prompt": ["Hello", "Bye"], "max_tokens": 4},
    "tokens": {"prompt": [72, 101], "max_tokens": 4},
    "stop": {"prompt": "1 2 3 4 5 1 2 3 4 5 1 2 3", "max_tokens": 40, "stop": ["4"]},
    "probabilities": {"prompt": "Hello", "max_tokens": 4, "logprobs": 2},
    "two answers": {"prompt": "Hello", "max_tokens": 4, "n": 2},
    "echo": {"prompt": "Hello", "max_tokens": 4, "echo": True},
}
for name, body in V1_COMPLETIONS.items():
    body = {**GREEDY, **body}
    add(f"v1 completion {name}", "/v1/completions", body)
    add(f"v1 completion {name}, streamed", "/v1/completions", {**body, "stream": True}, ordered=name not in UNORDERED)
add("v1 completion usage", "/v1/completions", {**GREEDY, **V1_COMPLETIONS["text"], "stream": True, "stream_options": {"include_usage": True}})

# Conversations.
CHATS: dict[str, dict[str, Any]] = {
    "short": {"messages": [user("What is the capital of France?")], "max_tokens": 4},
    "whole": {"messages": [user("What is the capital of France?")], "max_tokens": 200},
    "system": {**CONVERSATIONS["system"], "max_tokens": 8},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, user("hi")], "max_tokens": 8},
    "tool call": {"messages": [user("What is the weather in Paris?")], "tools": [TOOL], "max_tokens": 200},
    "tool required": {"messages": [user("hi")], "tools": [TOOL], "tool_choice": "required", "max_tokens": 200},
    "tool none": {"messages": [user("hi")], "tools": [TOOL], "tool_choice": "none", "max_tokens": 8},
    "tool result": {**CONVERSATIONS["result"], "max_tokens": 100},
    "no thinking": {"messages": [user("hi")], "chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 8},
    "raw thinking": {"messages": [user("What is 3 + 4?")], "reasoning_format": "none", "max_tokens": 60},
    "json object": {"messages": [user("hi")], "response_format": {"type": "json_object"}, "max_tokens": 200},
    "json schema": {"messages": [user("hi")], "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, "max_tokens": 200},
    "grammar": {"messages": [user("hi")], "grammar": 'root ::= "ab" "c"', "max_tokens": 100},
    "stop": {"messages": [user("What is the capital of France?")], "stop": ["i"], "max_tokens": 200},
    "probabilities": {"messages": [user("hi")], "logprobs": True, "top_logprobs": 2, "max_tokens": 4},
    "timings": {"messages": [user("hi")], "timings_per_token": True, "max_tokens": 4},
    "progress": {"messages": [user("hi " * 40)], "return_progress": True, "cache_prompt": False, "max_tokens": 4},
    "prefilled": {**CONVERSATIONS["prefilled"], "max_tokens": 8},
    "two answers": {"messages": [user("hi")], "n": 2, "max_tokens": 4},
    "completion tokens": {"messages": [user("hi")], "max_completion_tokens": 4},
    "other model": {"messages": [user("hi")], "model": "gpt-4o", "max_tokens": 4},
    "ignored": {"messages": [user("hi")], "user": "u", "metadata": {"a": "b"}, "store": False, "max_tokens": 4},
}  # fmt: skip
for name, body in CHATS.items():
    body = {**GREEDY, **body}
    add(f"chat {name}", "/v1/chat/completions", body)
    add(f"chat {name}, streamed", "/v1/chat/completions", {**body, "stream": True}, ordered=name not in UNORDERED)
for name in ("short", "tool call"):
    add(f"unversioned chat {name}", "/chat/completions", {**GREEDY, **CHATS[name]})
add("chat usage", "/v1/chat/completions", {**GREEDY, **CHATS["short"], "stream": True, "stream_options": {"include_usage": True}})
BAD_CHATS: dict[str, dict[str, Any]] = {
    "too long": {"messages": [user(LONG)]},
    "too long, streamed": {"messages": [user(LONG)], "stream": True},
    "tools": {"messages": [user("hi")], "tools": "x"},
    "tool": {"messages": [user("hi")], "tools": [{"type": "function"}]},
    "tool choice": {"messages": [user("hi")], "tools": [TOOL], "tool_choice": "sometimes"},
    "format": {"messages": [user("hi")], "response_format": {"type": "yaml"}},
    "schema": {"messages": [user("hi")], "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}},
    "grammar": {"messages": [user("hi")], "grammar": "root ::= ("},
    "both forms": {"messages": [user("hi")], "grammar": 'root ::= "a"', "json_schema": {}},
    "temperature": {"messages": [user("hi")], "temperature": "hot"},
    "top_logprobs": {"messages": [user("hi")], "top_logprobs": 2},
    "max_tokens": {"messages": [user("hi")], "max_tokens": -5},
}
for name, body in BAD_CHATS.items():
    add(f"chat bad {name}", "/v1/chat/completions", body)
    add(f"unversioned chat bad {name}", "/chat/completions", body)

# What the model, or a server as it is started by default, does not do.
for path, body in {
    "/embedding": {"content": "x"},
    "/embeddings": {"content": "x"},
    "/v1/embeddings": {"input": "x"},
    "/rerank": {"query": "x", "documents": ["y"]},
    "/reranking": {"query": "x", "documents": ["y"]},
    "/v1/rerank": {"query": "x", "documents": ["y"]},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
}.items():
    add(f"post {path}", path, body)

# Filling in.
GAP = {"input_prefix": "def add(a, b):\n", "input_suffix": "\nprint(add(1, 2))", "n_predict": 6}
INFILLS: dict[str, dict[str, Any]] = {
    "gap": GAP,
    "begun": {**GAP, "prompt": "    return"},
    "control tokens": {**GAP, "input_prefix": "<|im_start|>"},
    "other files": {**GAP, "input_extra": [{"filename": "a.py", "text": "x = 1"}, {"text": "y = 2"}]},
    "long": {**GAP, "input_prefix": "a " * 3000, "input_suffix": "b " * 3000},
    "no prefix": {"input_suffix": "b"},
    "no suffix": {"input_prefix": "a"},
    "number": {"input_prefix": 5, "input_suffix": "b"},
    "prompt": {**GAP, "prompt": 5},
    "extra": {**GAP, "input_extra": "x"},
    "extra without text": {**GAP, "input_extra": [{"filename": "a"}]},
    "extra name": {**GAP, "input_extra": [{"filename": 5, "text": "x"}]},
}
for name, body in INFILLS.items():
    add(f"infill {name}", "/infill", {**GREEDY, **body}, fills_in=True)
add("infill streamed", "/infill", {**GREEDY, **GAP, "stream": True}, fills_in=True)
