"""The official Anthropic client against the real server."""

from __future__ import annotations

import anthropic
import pytest
from conftest import QUESTION, RESULT, WEATHER, Server

FUNCTION = WEATHER["function"]
TOOL = {"name": FUNCTION["name"], "description": FUNCTION["description"], "input_schema": FUNCTION["parameters"]}


@pytest.fixture
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60)


def ask(text: str, **more: object) -> dict:
    request = {
        "model": "demo-reasoner",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 200,
        "extra_body": {"temperature": 0},
    }
    return {**request, **more}


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_messages(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ask("hello", system="You are a friendly assistant."))
    assert text_of(message)
    assert (message.type, message.role, message.model) == ("message", "assistant", "demo-reasoner")
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0
    assert message._request_id
    short = client.messages.create(**ask("hello", max_tokens=1))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 1)


def test_stream(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ask("hello"))
    with client.messages.stream(**ask("hello")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(final) == text_of(whole)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    read = [usage.input_tokens + usage.cache_read_input_tokens for usage in (final.usage, whole.usage)]
    assert read[0] == read[1] > 0
    events = list(client.messages.create(**ask("hello"), stream=True))
    assert events[0].type == "message_start"
    start = events[0].message.usage
    assert start.input_tokens + start.cache_read_input_tokens == read[0]
    assert [event.type for event in events[-2:]] == ["message_delta", "message_stop"]


def test_thinking(client: anthropic.Anthropic) -> None:
    question = "A box has 7 apples. I add 5. How many?"
    request = ask(question, max_tokens=1000, thinking={"type": "enabled", "budget_tokens": 500})
    message = client.messages.create(**request)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].signature
    assert 0 < message.usage.output_tokens_details.thinking_tokens < message.usage.output_tokens
    with client.messages.stream(**request) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert {"thinking", "signature", "text"} <= kinds
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking == message.content[0].thinking
    # The thought may come back.
    again = [
        {"role": "user", "content": question},
        message.to_param(),
        {"role": "user", "content": "hello"},
    ]
    assert client.messages.create(**ask("", messages=again)).content
    without = client.messages.create(**ask(question, thinking={"type": "disabled"}))
    assert all(block.type == "text" for block in without.content)


@pytest.mark.parametrize("streams", [False, True])
def test_an_agent_calls_a_tool(client: anthropic.Anthropic, streams: bool) -> None:
    def turn(messages: list) -> anthropic.types.Message:
        request = ask("", messages=messages, tools=[TOOL])
        if not streams:
            return client.messages.create(**request)
        with client.messages.stream(**request) as stream:
            return stream.get_final_message()

    messages: list = [{"role": "user", "content": QUESTION}]
    message = turn(messages)
    assert message.stop_reason == "tool_use"
    call = message.content[-1]
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert call.input == {"city": "Paris"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    messages += [message.to_param(), {"role": "user", "content": [result]}]
    answer = turn(messages)
    assert answer.stop_reason == "end_turn"
    assert "18" in text_of(answer)


def test_tool_choice(client: anthropic.Anthropic) -> None:
    for choice in [{"type": "any"}, {"type": "tool", "name": "get_weather"}]:
        message = client.messages.create(**ask("hello", tools=[TOOL], tool_choice=choice))
        assert message.stop_reason in ("tool_use", "max_tokens")
        assert message.content[-1].name == "get_weather"
        assert isinstance(message.content[-1].input.get("city"), str)
    none = client.messages.create(**ask(QUESTION, tools=[TOOL], tool_choice={"type": "none"}))
    assert all(block.type != "tool_use" for block in none.content)


def test_stop_sequences(client: anthropic.Anthropic) -> None:
    whole = text_of(client.messages.create(**ask("hello")))
    stop = whole[2:4]
    message = client.messages.create(**ask("hello", stop_sequences=[stop]))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert text_of(message) == whole[: whole.index(stop)]


def test_structured_output(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    config = {"format": {"type": "json_schema", "schema": schema}}
    message = client.messages.create(**ask("hello", output_config=config))
    assert text_of(message).replace(" ", "") in ('{"city":"Paris"}', '{"city":"Rome"}')


def test_count_tokens(client: anthropic.Anthropic) -> None:
    request = {"model": "demo-reasoner", "messages": [{"role": "user", "content": QUESTION}]}
    count = client.messages.count_tokens(**request).input_tokens
    usage = client.messages.create(**request, max_tokens=1).usage
    assert count == usage.input_tokens + usage.cache_read_input_tokens
    assert client.messages.count_tokens(**request, system="Be brief.", tools=[TOOL]).input_tokens > count


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(**ask("hello", model="nobody"))
    assert missing.value.body["error"]["type"] == "not_found_error"
    assert missing.value.request_id
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    with pytest.raises(anthropic.BadRequestError, match="reads only text"):
        client.messages.create(**ask("", messages=[{"role": "user", "content": [image]}]))
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(**ask("word " * 20000))
    with pytest.raises(anthropic.BadRequestError, match="runs|tool"):
        client.messages.create(**ask("hello", tools=[{"type": "web_search_20250305", "name": "web_search"}]))


def test_a_stream_that_is_closed_frees_the_slot(server: Server, client: anthropic.Anthropic) -> None:
    request = ask("Tell me a story", model="demo-narrator", max_tokens=4000, extra_body={"ignore_eos": True})
    stream = client.messages.create(**request, stream=True)
    for event in stream:
        if event.type == "content_block_delta":
            break
    running = 'hearth_requests_running{model="demo-narrator"} '
    assert running + "1" in server.metrics()
    stream.close()
    for _ in range(100):
        if running + "0" in server.metrics():
            return
    raise AssertionError("the slot is busy")
