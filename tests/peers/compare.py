"""Sends the same requests to hearth and to a llama-server, both with the built-in reasoner, and compares the answers.

    python3 tests/peers/compare.py --hearth target/release/hearth --llama-server PATH [--only TEXT] [--show]

Every difference in status, keys, types or order of events must be in the table of differences.py with its reason, and every
row of the table must still be true.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cases import CASES, Case
from differences import DIFFERENCES
from gguf import strings, with_numbers
from shapes import Answer, compare, parse

CONFIG = """\
[server]
port = 0
slot_save_path = "slots"
[[model]]
name = "demo-reasoner"
path = "{model}"
context = 2048
parallel = 2
draft = {{ kind = "none" }}
"""
PATIENCE = 120
"""Seconds for a model to load, and for an answer."""


@contextmanager
def hearth(binary: str, model: Path, folder: Path) -> Iterator[int]:
    config = folder / "models.toml"
    config.write_text(CONFIG.format(model=model))
    environment = {**os.environ, "HEARTH_CACHE": str(folder / "cache")}
    command = [binary, "serve", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        port = None
        while port is None:
            line = process.stdout.readline()
            assert line, "hearth ended before it listened"
            found = re.search(r"http://[^/\s]*:(\d+)", line)
            port = int(found[1]) if found else None
        wait_until_ready(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def llama_server(binary: str, model: Path, folder: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binary, "-m", str(model), "-a", "demo-reasoner", "-c", "4096", "-np", "2", "-t", "2", "--port", str(port)]
    command += ["--no-webui", "--jinja", "--metrics", "--slot-save-path", f"{folder}/"]
    # Its threads would take the processor from hearth while they wait.
    environment = {**os.environ, "GOMP_SPINCOUNT": "1000"}
    with (folder / "llama-server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_until_ready(process, port)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_until_ready(process: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}"
        try:
            if send(port, Case("", "GET", "/health")).status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{process.args[0]} is not ready after {PATIENCE} s")


def send(port: int, case: Case) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        headers = {"Content-Type": "application/json"} if case.body is not None else {}
        connection.request(case.method, case.path, case.body, headers)
        response = connection.getresponse()
        return parse(response.status, response.getheader("Content-Type") or "", response.read())
    finally:
        connection.close()


def filling_model(reasoner: Path, folder: Path) -> Path:
    """The reasoner, with tokens for the gap: any control tokens do, for it has not learned to fill in."""
    tokens = strings(reasoner.read_bytes(), "tokenizer.ggml.tokens")
    gap = {"fim_pre": b"<tools>", "fim_suf": b"</tools>", "fim_mid": b"<tool_response>"}
    target = folder / "filling.gguf"
    with_numbers(reasoner, target, {f"tokenizer.ggml.{key}_token_id": tokens.index(text) for key, text in gap.items()})
    return target


def explaining(case: Case, difference: str) -> list[int]:
    """The rows of the table that have this difference."""
    return [
        row
        for row, (cases, what, _) in enumerate(DIFFERENCES)
        if re.fullmatch(cases, case.name) and re.fullmatch(what, difference, re.DOTALL)
    ]


def show(ours: Answer, peer: Answer) -> None:
    for who, answer in (("hearth", ours), ("llama-server", peer)):
        print(f"  {who}: {answer.status} {answer.text[:2000].strip()}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--hearth", required=True)
    arguments.add_argument("--llama-server", required=True)
    arguments.add_argument("--only", default="", help="cases whose name contains this")
    arguments.add_argument("--show", action="store_true", help="print both answers where they differ")
    given = arguments.parse_args()
    cases = [case for case in CASES if given.only in case.name]
    reasoner = Path(__file__).resolve().parents[2] / "assets/demo/reasoner.gguf"
    used: set[int] = set()
    unknown = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, fills_in in ((reasoner, False), (filling_model(reasoner, folder), True)):
            chosen = [case for case in cases if case.fills_in == fills_in]
            if not chosen:
                continue
            with hearth(given.hearth, model, folder) as ours, llama_server(given.llama_server, model, folder) as peer:
                for case in chosen:
                    answers = send(ours, case), send(peer, case)
                    for difference in compare(*answers, case.ordered, case.exact):
                        rows = explaining(case, difference)
                        used.update(rows)
                        if not rows:
                            unknown += 1
                            print(f"{case.name}: {difference}", flush=True)
                            if given.show:
                                show(*answers)
    stale = [row for row in range(len(DIFFERENCES)) if row not in used] if not given.only else []
    for row in stale:
        print(f"the table has a difference that is none any more: {DIFFERENCES[row]}")
    print(f"{len(cases)} requests; {unknown} unexplained differences, {len(stale)} stale rows of {len(DIFFERENCES)}")
    return 1 if unknown or stale else 0


if __name__ == "__main__":
    sys.exit(main())
