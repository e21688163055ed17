"""Prompts of public templates against Python's Jinja2, set up as transformers does.

The templates are in the source of llama-cpp-python. differences.py says where prompts differ and why.
"""

from __future__ import annotations

import difflib
import json
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import serving
from jinja2 import TemplateError

sys.path.append(str(Path(__file__).parents[2] / "templates"))
from conversations import CONVERSATIONS
from differences import DIFFERENCES, Case, Difference, with_text_arguments

MODEL = """
[[model]]
name = "{name}"
path = "demo:reasoner"
chat_template = "{name}.jinja"
context = 32
parallel = 1
threads = 1
"""


@pytest.fixture(scope="module")
def templates() -> dict[str, str]:
    """The public templates by name."""
    (archive,) = Path(sys.prefix, "sources").glob("llama_cpp_python-*.tar.gz")
    found: dict[str, str] = {}
    with tarfile.open(archive) as files:
        for member in files:
            path = Path(member.name)
            if path.suffix == ".jinja" and path.parts[1:-1] == ("vendor", "llama.cpp", "models", "templates"):
                found[path.stem] = files.extractfile(member).read().decode()
    assert len(found) == 70
    return found


@pytest.fixture(scope="module")
def url(templates: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a model for each template."""
    folder = tmp_path_factory.mktemp("templates")
    for name, template in templates.items():
        (folder / f"{name}.jinja").write_bytes(template.encode())
    models = "".join(MODEL.format(name=name) for name in templates)
    with serving(folder, f"[server]\nport = 0\n{models}") as urls:
        yield urls[0]


class Refused(Exception):
    """A template, or who renders it, does not take the conversation."""


def ask(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.load(error)["error"]["message"]
        assert error.code == 400, said
        raise Refused(said) from error


def hearths(url: str, name: str, conversation: dict) -> str:
    """hearth's prompt."""
    messages = with_text_arguments(conversation["messages"])
    body = {"model": name, "messages": messages, "chat_template_kwargs": conversation.get("variables", {})}
    if "tools" in conversation:
        body["tools"] = conversation["tools"]
    return ask(f"{url}/apply-template", body)["prompt"]


def pythons(case: Case) -> str:
    try:
        return case.render()
    # Templates also do what Python itself refuses.
    except (TemplateError, TypeError) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def either(render: object, *given: object) -> tuple[str | None, str]:
    """A prompt, or what is said in its place."""
    try:
        return render(*given), ""
    except Refused as error:
        return None, str(error)


def shown(one: str | None, other: str | None) -> str:
    """Where texts differ, in their first few lines."""
    if one is None or other is None:
        return ""
    lines = difflib.unified_diff(repr(one).split("\\n"), repr(other).split("\\n"), "Python", "hearth", lineterm="", n=1)
    return "\n    ".join(list(lines)[:16])


def wrong(case: Case, mine: tuple[str | None, str], listed: list[Difference]) -> str:
    """What is wrong with hearth's prompt, if anything is."""
    (prompt, refusal), (expected, error) = mine, either(pythons, case)
    what = f"Python refuses ({error}), hearth: {refusal or 'a prompt'}" if error else refusal
    if not listed:
        if prompt is not None and prompt == expected:
            return ""
        return f"not the same: {what}\n    {shown(expected, prompt)}"
    (difference,) = listed
    if prompt is not None and prompt == expected:
        return f"the same, but listed as different: {difference.reason}"
    if difference.alike is None:
        return "" if prompt is None and difference.refusal in refusal else f"not refused as listed: {what}"
    alike = difference.alike(case)
    return "" if prompt == alike else f"different for another reason than listed: {what}\n    {shown(alike, prompt)}"


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompts_are_those_of_python(name: str, templates: dict[str, str], url: str) -> None:
    conversation = CONVERSATIONS[name]
    bad = []
    for template, source in templates.items():
        properties = ask(f"{url}/props?model={template}")
        values = {
            "messages": conversation["messages"],
            "tools": conversation.get("tools"),
            "documents": None,
            "add_generation_prompt": True,
            "bos_token": properties["bos_token"],
            "eos_token": properties["eos_token"],
            **conversation.get("variables", {}),
        }
        listed = [row for row in DIFFERENCES if template in row.templates.split() and name in row.conversations.split()]
        if what := wrong(Case(source, values), either(hearths, url, template, conversation), listed):
            bad.append(f"{template}, {name}: {what}")
    assert not bad, "\n" + "\n".join(bad)


def test_the_list_of_differences_names_what_there_is(templates: dict[str, str]) -> None:
    for difference in DIFFERENCES:
        assert set(difference.templates.split()) <= set(templates)
        assert set(difference.conversations.split()) <= set(CONVERSATIONS)
