"""instructor: types as answers, in each of its ways."""

from __future__ import annotations

import instructor
import openai
import pytest
from conftest import Server
from pydantic import BaseModel


class City(BaseModel):
    """What the model extracts."""

    city: str


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA])
def test_a_type_is_answered(server: Server, mode: instructor.Mode) -> None:
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60), mode=mode
    )
    answer, whole = client.chat.completions.create_with_completion(
        model="demo-reasoner",
        messages=[{"role": "user", "content": "Extract the city as JSON: Anna lives in Paris"}],
        response_model=City,
        temperature=0,
        max_tokens=256,
        max_retries=0,
    )
    assert isinstance(answer, City) and answer.city
    assert whole.usage.completion_tokens > 0
