"""langchain-openai: messages, streams, tools, structured output."""

from __future__ import annotations

import pytest
from conftest import QUESTION, RESULT, Server
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


@pytest.fixture
def model(server: Server) -> ChatOpenAI:
    return ChatOpenAI(
        model="demo-reasoner", base_url=f"{server.url}/v1", api_key="none", temperature=0, max_tokens=256, max_retries=0
    )


@tool
def get_weather(city: str) -> str:
    """Current weather in a city"""
    return RESULT


def test_a_stream_says_what_a_whole_answer_says(model: ChatOpenAI) -> None:
    whole = model.invoke("hello")
    parts = list(model.stream("hello", stream_usage=True))
    assert "".join(part.content for part in parts) == whole.content
    assert whole.usage_metadata["output_tokens"] > 0
    usage = [part.usage_metadata for part in parts if part.usage_metadata]
    assert usage[-1]["output_tokens"] == whole.usage_metadata["output_tokens"]


@pytest.mark.parametrize("streams", [False, True])
def test_a_loop_with_a_tool(model: ChatOpenAI, streams: bool) -> None:
    bound = model.bind_tools([get_weather])
    messages = [HumanMessage(QUESTION)]
    if streams:
        call = None
        for part in bound.stream(messages):
            call = part if call is None else call + part
    else:
        call = bound.invoke(messages)
    assert [(one["name"], one["args"]) for one in call.tool_calls] == [("get_weather", {"city": "Paris"})]
    result = ToolMessage(get_weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.tool_calls[0]["id"])
    answer = bound.invoke([*messages, call, result])
    assert not answer.tool_calls and "Paris" in answer.content


class City(BaseModel):
    """What the model extracts."""

    city: str


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model: ChatOpenAI, method: str) -> None:
    answer = model.with_structured_output(City, method=method).invoke("Extract the city as JSON: Anna lives in Paris")
    assert isinstance(answer, City)
