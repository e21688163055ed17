"""The official OpenAI client against the real server: on the shared port and on a model's own."""

from __future__ import annotations

import json
import time

import openai
import pytest
from conftest import QUESTION, RESULT, WEATHER, Server
from pydantic import BaseModel


def connect(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(params=["shared", "own"])
def client(request: pytest.FixtureRequest, server: Server) -> openai.OpenAI:
    return connect(server.url if request.param == "shared" else server.reasoner)


def ask(text: str) -> dict:
    return {"model": "demo-reasoner", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 64}


def test_models(server: Server) -> None:
    assert [model.id for model in connect(server.url).models.list()] == ["demo-reasoner", "demo-narrator"]
    assert [model.id for model in connect(server.narrator).models.list()] == ["demo-narrator"]
    assert connect(server.url).models.retrieve("demo-narrator").owned_by == "hearth"


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


def test_a_loop_with_a_tool(client: openai.OpenAI) -> None:
    """Question -> call -> result -> answer."""
    first = client.chat.completions.create(**ask(QUESTION), tools=[WEATHER]).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    messages = [
        {"role": "user", "content": QUESTION},
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": RESULT},
    ]
    last = client.chat.completions.create(**{**ask(QUESTION), "messages": messages}, tools=[WEATHER]).choices[0]
    assert last.finish_reason == "stop" and "Paris" in last.message.content


def test_calls_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ask(QUESTION), tools=[WEATHER]) as stream:
        events = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert "tool_calls.function.arguments.done" in events


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_can_be_required(client: openai.OpenAI, choice: object) -> None:
    answer = client.chat.completions.create(**{**ask("hello"), "max_tokens": 256}, tools=[WEATHER], tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather" and isinstance(json.loads(call.function.arguments)["city"], str)
    none = client.chat.completions.create(**ask(QUESTION), tools=[WEATHER], tool_choice="none").choices[0].message
    assert not none.tool_calls


class City(BaseModel):
    """What the model extracts."""

    city: str


def test_parse(client: openai.OpenAI) -> None:
    request = ask("Extract the city as JSON: Anna lives in Paris")
    answer = client.chat.completions.parse(**request, response_format=City).choices[0].message
    assert isinstance(answer.parsed, City)
    whole = client.chat.completions.create(**request, response_format={"type": "json_object"}).choices[0].message
    assert isinstance(json.loads(whole.content), dict)


def test_thoughts_are_apart(client: openai.OpenAI) -> None:
    request = {**ask("What is 12 + 30? Think step by step."), "max_tokens": 256}
    message = client.chat.completions.create(**request).choices[0].message
    assert "<think>" not in (message.content or "")
    chunks = list(client.chat.completions.create(**request, stream=True))
    thoughts = "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks if chunk.choices)
    assert thoughts == (getattr(message, "reasoning_content", None) or "")


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
            connect(url).chat.completions.create(**{**ask("hello"), "model": name})
        assert missing.value.code == "model_not_found"
    # The only model of a port takes names that no model has.
    request = {**ask("hello"), "model": "gpt-4o"}
    assert connect(server.reasoner).chat.completions.create(**request).model == "demo-reasoner"


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
    client = connect(server.url)
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
