"""The official OpenAI client against the real server: on the shared port and on a model's own."""

from __future__ import annotations

import time

import openai
import pytest
from conftest import Server

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(params=["shared", "own"])
def client(request: pytest.FixtureRequest, server: Server) -> openai.OpenAI:
    return server.client(None if request.param == "shared" else server.reasoner)


def ask(text: str) -> dict:
    return {"model": "demo-reasoner", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 64}


def test_models(server: Server) -> None:
    assert [model.id for model in server.client().models.list()] == ["demo-reasoner", "demo-narrator"]
    assert [model.id for model in server.client(server.narrator).models.list()] == ["demo-narrator"]
    assert server.client().models.retrieve("demo-narrator").owned_by == "hearth"


def test_chat(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ask("hello"))
    assert whole.choices[0].message.content
    assert whole.choices[0].finish_reason in ("stop", "length")
    chunks = list(client.chat.completions.create(**ask("hello"), stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason


def test_completions(client: openai.OpenAI) -> None:
    request = {"model": "demo-reasoner", "prompt": "hearth is", "temperature": 0, "max_tokens": 16}
    whole = client.completions.create(**request)
    parts = client.completions.create(**request, stream=True)
    assert "".join(part.choices[0].text for part in parts if part.choices) == whole.choices[0].text
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_tools_reach_the_prompt(client: openai.OpenAI) -> None:
    without = client.chat.completions.create(**ask("What is the weather in Paris?"))
    answer = client.chat.completions.create(**ask("What is the weather in Paris?"), tools=[WEATHER])
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens
    message = answer.choices[0].message
    assert message.tool_calls or "<tool_call>" in (message.content or "")


def test_the_same_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    request = {**ask("Tell me a story"), "temperature": 1.2, "seed": 7}
    answers = {client.chat.completions.create(**request).choices[0].message.content for _ in range(2)}
    assert len(answers) == 1


def test_stop(client: openai.OpenAI) -> None:
    request = {"model": "demo-reasoner", "prompt": "a b c a b c a b c a b", "temperature": 0, "max_tokens": 32}
    full = client.completions.create(**request).choices[0].text
    if len(full) < 3:
        pytest.skip("the model has nothing to say here")
    stop = full[1:3]
    stopped = client.completions.create(**request, stop=[stop]).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text == full[: full.index(stop)]


def test_models_by_name(server: Server) -> None:
    for url, name in [(server.url, "nobody"), (server.reasoner, "demo-narrator")]:
        with pytest.raises(openai.NotFoundError) as missing:
            server.client(url).chat.completions.create(**{**ask("hello"), "model": name})
        assert missing.value.code == "model_not_found"
    # The only model of a port takes names that no model has.
    request = {**ask("hello"), "model": "gpt-4o"}
    assert server.client(server.reasoner).chat.completions.create(**request).model == "demo-reasoner"


def test_several_prompts(client: openai.OpenAI) -> None:
    prompts = ["hearth is", "Once upon a time"]
    request = {"model": "demo-reasoner", "temperature": 0, "max_tokens": 8}
    together = client.completions.create(**request, prompt=prompts)
    assert [choice.index for choice in together.choices] == [0, 1]
    assert together.usage.total_tokens == together.usage.prompt_tokens + together.usage.completion_tokens
    texts = ["", ""]
    for chunk in client.completions.create(**request, prompt=prompts, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in together.choices]


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(**ask("word " * 20000))
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(**{**ask("hello"), "temperature": 99})
    assert hot.value.param == "temperature"


def test_a_closed_stream_frees_the_slot(server: Server) -> None:
    client = server.client()
    stream = client.completions.create(
        model="demo-narrator", prompt="Once", max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    running = 'hearth_requests_running{model="demo-narrator"} '
    assert running + "1" in server.metrics()
    stream.close()
    deadline = time.monotonic() + 2
    while running + "0" not in server.metrics():
        assert time.monotonic() < deadline
        time.sleep(0.02)
