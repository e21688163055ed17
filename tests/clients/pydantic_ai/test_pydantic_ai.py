"""pydantic-ai: agents with tools and typed results."""

from __future__ import annotations

import pytest
from conftest import QUESTION, RESULT, Server
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

SETTINGS = ModelSettings(temperature=0.0, max_tokens=256)


@pytest.fixture
def model(server: Server) -> OpenAIChatModel:
    return OpenAIChatModel("demo-reasoner", provider=OpenAIProvider(base_url=f"{server.url}/v1", api_key="none"))


def test_an_agent_calls_a_tool_and_answers(model: OpenAIChatModel) -> None:
    agent = Agent(model, model_settings=SETTINGS)
    asked: list[str] = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Current weather in a city"""
        asked.append(city)
        return RESULT

    result = agent.run_sync(QUESTION)
    assert asked == ["Paris"]
    assert "Paris" in result.output
    assert result.usage.requests == 2 and result.usage.output_tokens > 0


async def whole(agent: Agent, text: str) -> str:
    async with agent.run_stream(text) as result:
        return "".join([part async for part in result.stream_text(delta=True)])


def test_a_stream_says_what_a_whole_answer_says(model: OpenAIChatModel) -> None:
    import asyncio

    agent = Agent(model, model_settings=SETTINGS)
    assert asyncio.run(whole(agent, "hello")) == agent.run_sync("hello").output


class City(BaseModel):
    """What the model extracts."""

    city: str


def test_a_typed_result(model: OpenAIChatModel) -> None:
    agent = Agent(model, output_type=NativeOutput(City), model_settings=SETTINGS)
    assert isinstance(agent.run_sync("Extract the city as JSON: Anna lives in Paris").output, City)
