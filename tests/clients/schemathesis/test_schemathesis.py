"""schemathesis: requests made up from /openapi.json, and answers held against it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import Server

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
# Further paths of handlers that are tested under another one.
ALIASES = ["/api/v1/chat/completions", "/embeddings", "/readyz", "/reranking", "/v1/rerank", "/v1/reranking"]
# 501 says that the model or the server cannot do it, as llama-server's does: the description has it where it may come.
CONFIG = """[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501"]
"""
# For each resource. Together they are more than what is asked for below.
EXAMPLES = 60
CASES = 500


@pytest.fixture(scope="session")
def more() -> str:
    """Short contexts, and so short answers: these tests are about requests."""
    return "context = 256\nparallel = 8"


def test_no_request_breaks_the_description(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = ["schemathesis", "--config-file", str(config), "run", f"{server.url}/openapi.json", "--checks", ",".join(CHECKS)]
    command += ["--phases", "examples,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1", "--workers", "1"]
    command += ["--request-timeout", "60", "--continue-on-failure", "--suppress-health-check", "all"]
    for path in ALIASES:
        command += ["--exclude-path", path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    cases = re.search(r"([\d,]+) generated", done.stdout)
    assert cases and int(cases[1].replace(",", "")) >= CASES
