"""A real `hearth serve` with the built-in pair, for clients of other people."""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CONFIG = """
[server]
port = 0
[[model]]
name = "demo-reasoner"
role = "reasoning"
path = "demo:reasoner"
port = 0
[[model]]
name = "demo-narrator"
role = "narrator"
path = "demo:narrator"
port = 0
embeddings = true
[[preset]]
name = "city"
model = "demo-reasoner"
system = "Extract the city as JSON."
enable_thinking = false
sampling = { temperature = 0.0, max_tokens = 64 }
[preset.response_format]
type = "json_schema"
json_schema.schema = { type = "object", properties.city.type = "string", required = ["city"], additionalProperties = false }
"""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
"""A tool as the built-in reasoner knows them."""

QUESTION = "What is the weather in Paris?"
RESULT = '{"city": "Paris", "temperature": 18, "condition": "sunny"}'


@dataclass
class Server:
    """Base URLs: of all models, and of each model alone."""

    url: str
    reasoner: str
    narrator: str

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics") as response:
            return response.read().decode()


@pytest.fixture(scope="session")
def more() -> str:
    """Keys that a client wants in every model."""
    return ""


@contextmanager
def serving(folder: Path, text: str) -> Iterator[list[str]]:
    """A server with this configuration, when its models are ready: its base URLs, one for each port that is named."""
    config = folder / "models.toml"
    config.write_text(text)
    binary = os.environ.get("HEARTH_BIN") or Path(__file__).parents[2] / "target/release/hearth"
    process = subprocess.Popen(
        [str(binary), "serve", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HEARTH_CACHE": str(folder / "cache")},
    )
    try:
        urls: list[str] = []
        while len(urls) < len(re.findall("(?m)^port = ", text)):
            line = process.stdout.readline()
            assert line, "the server ended before it listened"
            urls += re.findall(r"http://\S+", line)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{urls[0]}/readyz")
                break
            except urllib.error.HTTPError:
                assert time.monotonic() < deadline, "the models are not ready after a minute"
                time.sleep(0.1)
        yield urls
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, more: str) -> Iterator[Server]:
    text = re.sub('(path = ".*")', f"\\1\n{more}", CONFIG)
    with serving(tmp_path_factory.mktemp("hearth"), text) as urls:
        yield Server(*urls)
