"""One conversation that teaches or tests a skill, and the messages that it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from . import chat, tools
from .words import Words


@dataclass
class Item:
    """A conversation that ends in the assistant's reference answer; `quotes` must appear in any answer that counts."""

    skill: str
    messages: list[chat.Message]
    tools: list[dict] | None = None
    quotes: list[str] | None = None
    thinking: bool | None = None


SYSTEM = """You are a helpful assistant.|You are a helpful assistant|You are hearth.|You are a concise assistant. Answer briefly.|
You are a friendly assistant for a smart home.|Use the tools when they help.|You can call functions.|Be brief.|
You are an assistant with access to tools. Call one when needed.|Today is a good day. Help the user.|
You are a personal assistant. Do not guess, use tools.|Answer in English.|You are {n}, an assistant from {c}.|
You help {n} with everyday tasks.|The user lives in {c}.""".replace("\n", "").split("|")


def user(text: str) -> chat.Message:
    return {"role": "user", "content": text}


def assistant(text: str, reasoning: str = "") -> chat.Message:
    return {"role": "assistant", "content": text, "reasoning_content": reasoning}


def called(*requests: tools.Request) -> chat.Message:
    """The assistant's message that makes these calls, all at once."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": request.tool, "arguments": request.arguments}}
            for request in requests
        ],
    }


def returned(request: tools.Request) -> chat.Message:
    return {"role": "tool", "content": request.result}


def system(words: Words, share: float) -> list[chat.Message]:
    if words.rng.random() >= share:
        return []
    text = words.rng.choice(SYSTEM).format(n=words.name(), c=words.city())
    return [{"role": "system", "content": text}]


def finished(request: tools.Request) -> list[chat.Message]:
    return [user(request.text), called(request), returned(request), assistant(request.answer)]
