"""The official OpenAI client's Responses against the real server: whole, as events, and over a WebSocket."""

from __future__ import annotations

import json

import openai
import pytest
from conftest import QUESTION, RESULT, WEATHER, Server
from openai.types.responses import Response
from pydantic import BaseModel, TypeAdapter

SUM = "A box has 7 apples. I add 5. How many?"
TOOL = {"type": "function", **WEATHER["function"]}


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def ask(text: object, **more: object) -> dict:
    return {"model": "demo-reasoner", "input": text, "temperature": 0, "max_output_tokens": 200, **more}


def strict(response: Response) -> Response:
    """The response as its types want it: the client itself does not check."""
    return TypeAdapter(Response).validate_python(response.model_dump(), strict=False)


def test_create(client: openai.OpenAI) -> None:
    response = client.responses.create(**ask("hello", instructions="Be friendly.", metadata={"a": "b"}))
    assert response.output_text
    assert (response.status, response.model, response.metadata) == ("completed", "demo-reasoner", {"a": "b"})
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    strict(response)
    short = client.responses.create(**ask("hello", max_output_tokens=1))
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_stream(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ask("hello"))
    events = list(client.responses.create(**ask("hello"), stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == events[-1].response.output_text == whole.output_text
    with client.responses.stream(**ask("hello")) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == whole.output_text
    strict(events[-1].response)


def test_reasoning(client: openai.OpenAI) -> None:
    response = client.responses.create(**ask(SUM))
    assert [item.type for item in response.output] == ["reasoning", "message"]
    thought = response.output[0].content[0].text
    assert thought and 0 < response.usage.output_tokens_details.reasoning_tokens < response.usage.output_tokens
    with client.responses.stream(**ask(SUM)) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.reasoning_text.delta")
    assert deltas == thought
    without = client.responses.create(**ask(SUM, reasoning={"effort": "none"}))
    assert [item.type for item in without.output] == ["message"]


@pytest.mark.parametrize("how", ["items", "previous_response_id"])
def test_an_agent_calls_a_function(client: openai.OpenAI, how: str) -> None:
    items: list = [{"role": "user", "content": QUESTION}]
    response = client.responses.create(**ask(items, tools=[TOOL]))
    call = response.output[-1]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})
    strict(response)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    if how == "items":
        items += [item.model_dump() for item in response.output] + [result]
        answer = client.responses.create(**ask(items, tools=[TOOL], store=False))
    else:
        more = {"previous_response_id": response.id, "tools": [TOOL]}
        answer = client.responses.create(**ask([result], **more))
    assert "18" in answer.output_text


def test_tool_choice(client: openai.OpenAI) -> None:
    for choice in ["required", {"type": "function", "name": "get_weather"}]:
        with client.responses.stream(**ask("hello", tools=[TOOL], tool_choice=choice)) as stream:
            names = [event.type for event in stream]
            final = stream.get_final_response()
        assert "response.function_call_arguments.delta" in names
        assert isinstance(json.loads(final.output[-1].arguments)["city"], str)
    none = client.responses.create(**ask(QUESTION, tools=[TOOL], tool_choice="none"))
    assert all(item.type != "function_call" for item in none.output)


def test_structured_output(client: openai.OpenAI) -> None:
    class Place(BaseModel):
        city: str

    response = client.responses.parse(**ask("hello", reasoning={"effort": "none"}), text_format=Place)
    assert response.status == "incomplete" or isinstance(response.output_parsed, Place)


def test_what_is_stored(client: openai.OpenAI) -> None:
    first = client.responses.create(**ask("hello"))
    assert client.responses.retrieve(first.id).output_text == first.output_text
    items = client.responses.input_items.list(first.id).data
    assert items[0].content[0].text == "hello"
    second = client.responses.create(**ask("And you?", previous_response_id=first.id))
    assert second.usage.input_tokens > first.usage.input_tokens
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as gone:
        client.responses.create(**ask("And now?", previous_response_id=second.id))
    assert gone.value.code == "previous_response_not_found"
    kept = client.responses.create(**ask("hello", store=False))
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)


def test_input_tokens(client: openai.OpenAI) -> None:
    count = client.responses.input_tokens.count(model="demo-reasoner", input=QUESTION)
    assert count.input_tokens == client.responses.create(**ask(QUESTION)).usage.input_tokens


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.create(**ask("hello", model="nobody"))
    assert missing.value.code == "model_not_found"
    for more, param in [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(**ask("hello", **more))
        assert refused.value.param == param
    with pytest.raises(openai.BadRequestError) as long:
        client.responses.create(**ask("word " * 20000))
    assert long.value.code == "context_length_exceeded"
    told = "user: tell a story. " * 400
    items = [{"role": "user", "content": told}, {"role": "assistant", "content": told}, {"role": "user", "content": "hello"}]
    cut = client.responses.create(**ask(items * 8, truncation="auto"))
    assert cut.output_text


def until_done(connection: object) -> list:
    events = []
    for event in connection:
        events.append(event)
        if event.type in ("response.completed", "response.incomplete", "response.failed", "error"):
            return events
    raise AssertionError("the connection ended")


def test_websocket(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ask("hello"))
    with client.responses.connect() as connection:
        connection.response.create(**ask("hello"))
        events = until_done(connection)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert deltas == whole.output_text
        # A conversation that is not stored: the connection remembers it.
        connection.response.create(**ask(QUESTION, tools=[TOOL], store=False))
        response = until_done(connection)[-1].response
        call = response.output[-1]
        assert call.type == "function_call"
        result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
        connection.response.create(**ask([result], tools=[TOOL], store=False, previous_response_id=response.id))
        last = until_done(connection)[-1]
        assert last.type == "response.completed"
        assert "18" in "".join(part.text for item in last.response.output if item.type == "message" for part in item.content)
        # A mistake does not end it.
        connection.response.create(**ask("hello", model="nobody"))
        error = until_done(connection)[-1]
        assert (error.type, error.status, error.error.code) == ("error", 404, "model_not_found")
        connection.response.create(**ask("hello"))
        assert until_done(connection)[-1].type == "response.completed"


@pytest.mark.filterwarnings("ignore")
def test_websocket_async(server: Server) -> None:
    import asyncio

    async def run() -> str:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")
        async with client.responses.connect() as connection:
            await connection.response.create(**ask("hello"))
            async for event in connection:
                if event.type == "response.completed":
                    return event.response.output[0].type
        return ""

    assert asyncio.run(run()) in ("message", "reasoning")
