"""litellm: the same in its own words."""

from __future__ import annotations

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pytest
from conftest import QUESTION, RESULT, WEATHER, Server


@pytest.fixture
def request_of(server: Server) -> dict:
    return {
        "model": "openai/demo-reasoner",
        "api_base": f"{server.url}/v1",
        "api_key": "none",
        "temperature": 0,
        "max_tokens": 256,
        "num_retries": 0,
    }


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_a_stream_says_what_a_whole_answer_says(request_of: dict) -> None:
    whole = litellm.completion(**request_of, messages=user("hello"))
    parts = litellm.completion(**request_of, messages=user("hello"), stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0


def test_a_loop_with_a_tool(request_of: dict) -> None:
    first = litellm.completion(**request_of, messages=user(QUESTION), tools=[WEATHER]).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    messages = [*user(QUESTION), first.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    last = litellm.completion(**request_of, messages=messages, tools=[WEATHER]).choices[0]
    assert "Paris" in last.message.content


def test_errors_keep_their_kind(request_of: dict) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**request_of, messages=user("word " * 20000))
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**request_of, "model": "openai/nobody"}, messages=user("hello"))
