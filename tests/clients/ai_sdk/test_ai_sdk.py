"""The AI SDK (npm's `ai`): ai_sdk.mjs has the tests, with Node's own test runner."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Server


def test_ai_sdk(server: Server, subtests: pytest.Subtests) -> None:
    # Node looks for packages beside the file.
    script = shutil.copy(Path(__file__).with_name("ai_sdk.mjs"), sys.prefix)
    done = subprocess.run(
        ["node", "--test-reporter=tap", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env={**os.environ, "HEARTH_URL": server.url},
    )
    results = re.findall(r"(?ms)^(ok|not ok) \d+ - ([^\n]*)\n(.*?)(?=^# )", done.stdout)
    for result, name, details in results:
        with subtests.test(name):
            assert result == "ok", f"{name}\n{details}"
    # What broke beside the tests.
    assert results and (done.returncode == 0 or any(result != "ok" for result, *_ in results)), done.stdout
