"""Conversations as text: the chat template, and an equal fast path that marks what the model must learn to say."""

from __future__ import annotations

import json
from pathlib import Path

TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text()
TOOLS_HEAD = "# Tools\nFunctions you can call:\n<tools>\n"
TOOLS_TAIL = '</tools>\nTo call one, answer:\n<tool_call>\n{"name": <name>, "arguments": <object>}\n</tool_call>'
NO_THINKING = "<think>\n\n</think>\n\n"

Message = dict
Segment = tuple[str, bool]


def tojson(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def call_text(name: str, arguments: dict) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {tojson(arguments)}}}\n</tool_call>'


def segments(messages: list[Message], tools: list[dict] | None = None, thinking: bool | None = None) -> list[Segment]:
    """The template's output cut into (text, is the assistant's own words). `thinking=False` asks for an immediate answer."""
    parts: list[Segment] = []
    last_query = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    has_system = bool(messages) and messages[0]["role"] == "system"
    if has_system or tools:
        text = messages[0]["content"] if has_system else ""
        if tools:
            text += "\n\n" if has_system else ""
            text += TOOLS_HEAD + "".join(tojson(tool) + "\n" for tool in tools) + TOOLS_TAIL
        parts.append((f"<|im_start|>system\n{text}<|im_end|>\n", False))
    for i, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if role == "assistant":
            reasoning = message.get("reasoning_content") or ""
            shown = bool(reasoning) and i > last_query
            calls = [
                call_text(call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls") or []
            ]
            said = f"<think>\n{reasoning}\n</think>\n\n" * shown + "\n".join(([content] if content else []) + calls)
            last = i == len(messages) - 1
            parts.append(("<|im_start|>assistant\n" + NO_THINKING * (last and thinking is False), False))
            parts.append((said + "<|im_end|>", shown or not reasoning))
            parts.append(("\n", False))
        elif role == "tool":
            opening = "<|im_start|>user" if i == 0 or messages[i - 1]["role"] != "tool" else ""
            closing = "<|im_end|>\n" if i + 1 == len(messages) or messages[i + 1]["role"] != "tool" else ""
            parts.append((f"{opening}\n<tool_response>\n{content}\n</tool_response>{closing}", False))
        elif not (i == 0 and has_system):
            parts.append((f"<|im_start|>{role}\n{content}<|im_end|>\n", False))
    return parts


def prompt(messages: list[Message], tools: list[dict] | None = None) -> str:
    """What a server feeds the model before it answers."""
    return "".join(text for text, _ in segments(messages, tools)) + "<|im_start|>assistant\n"


def render_with_template(messages: list[Message], tools: list[dict] | None = None, **kwargs: object) -> str:
    """The slow path through Jinja, for the test that both agree."""
    import jinja2

    environment = jinja2.Environment()
    environment.filters["tojson"] = tojson
    return environment.from_string(TEMPLATE).render(messages=messages, tools=tools, **kwargs)
