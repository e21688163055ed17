"""What an answer looks like: the paths of its JSON with their types, and the kinds of events of a stream."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

# Values that clients decide upon: they are compared, not only their types.
WORDS = {"code", "finish_reason", "object", "prompt", "role", "stop", "stop_type", "stopping_word", "truncated", "type"}

Paths = dict[str, set[str]]


def type_of(key: str, value: Any) -> str:
    if key in WORDS and not isinstance(value, (dict, list)):
        return f"{value!r}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list) else "object"


def paths(value: Any, at: str = "", key: str = "", into: Paths | None = None) -> Paths:
    """The paths of a value: `choices[].delta.content` is a string."""
    into = {} if into is None else into
    into.setdefault(at or ".", set()).add(type_of(key, value))
    if isinstance(value, dict):
        for name, item in value.items():
            paths(item, f"{at}.{name}", name, into)
    elif isinstance(value, list):
        for item in value:
            paths(item, f"{at}[]", key, into)
    return into


def label(event: Any) -> str:
    """What an event of a stream is for."""
    if not isinstance(event, dict):
        return json.dumps(event)
    if "error" in event:
        return "error"
    if "prompt_progress" in event:
        return "progress"
    if "stop" in event:
        return "last" if event["stop"] else "text"
    choices = event.get("choices")
    if choices == []:
        return "usage" if event.get("usage") else "nothing"
    if choices:
        choice = choices[0]
        if choice.get("finish_reason"):
            return "finish"
        delta = choice.get("delta")
        if delta is None:
            return "text"
        for name in ("role", "tool_calls", "reasoning_content", "content"):
            if delta.get(name) is not None:
                return name
        return "empty"
    return "other"


@dataclass
class Answer:
    status: int
    kind: str
    """The content type, without parameters."""
    text: str
    events: list[Any] = field(default_factory=list)
    """Of a stream; `[DONE]` is a string."""

    @property
    def streamed(self) -> bool:
        return self.kind == "text/event-stream"

    def parts(self) -> dict[str, Paths]:
        """Paths by kind of event; a whole answer is one part."""
        if not self.streamed:
            try:
                return {"": paths(json.loads(self.text))}
            except ValueError:
                return {}
        parts: dict[str, Paths] = {}
        for event in self.events:
            if event != "[DONE]":
                paths(event, into=parts.setdefault(label(event), {}))
        return parts

    def order(self) -> list[str]:
        """The kinds of events in their order; one that repeats counts once."""
        labels = ["[DONE]" if event == "[DONE]" else label(event) for event in self.events]
        return [name for at, name in enumerate(labels) if at == 0 or labels[at - 1] != name]


def parse(status: int, kind: str, body: bytes) -> Answer:
    text = body.decode("utf-8", "replace")
    answer = Answer(status, kind.split(";")[0].strip(), text)
    if answer.streamed:
        for line in text.splitlines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                answer.events.append(data if data == "[DONE]" else json.loads(data))
    return answer


def below_empty_list(path: str, other: Paths) -> bool:
    """Whether the other answer has nothing in the list that the path leads into."""
    parts = path.split("[]")
    return any("[]".join(parts[:end]) in other and "[]".join(parts[:end]) + "[]" not in other for end in range(1, len(parts)))


def compare(ours: Answer, peer: Answer, ordered: bool, exact: bool) -> list[str]:
    """In what our answer is another one, in words that the table of differences matches."""
    found = []
    if ours.status != peer.status:
        # There is nothing else to compare: one answers and the other does not, or both say in their words why not.
        return [f"status {ours.status}, not {peer.status}"]
    if ours.kind != peer.kind:
        found.append(f"content type {ours.kind}, not {peer.kind}")
        return found
    if ordered and ours.order() != peer.order():
        found.append(f"events {' '.join(ours.order())}, not {' '.join(peer.order())}")
    our_parts, peer_parts = ours.parts(), peer.parts()
    for part in sorted(our_parts.keys() | peer_parts.keys()):
        name = f"{part}:" if part else ""
        if part not in our_parts or part not in peer_parts:
            if not ordered:
                found.append(f"{'no ' if part not in our_parts else ''}event {part}")
            continue
        mine, theirs = our_parts[part], peer_parts[part]
        for path in sorted(mine.keys() | theirs.keys()):
            if path not in mine:
                if not below_empty_list(path, mine):
                    found.append(f"without {name}{path}")
            elif path not in theirs:
                if not below_empty_list(path, theirs):
                    found.append(f"with {name}{path}")
            elif mine[path] != theirs[path]:
                found.append(f"{name}{path} is {'|'.join(sorted(mine[path]))}, not {'|'.join(sorted(theirs[path]))}")
    if exact and not found and json.loads(ours.text) != json.loads(peer.text):
        found.append(f"value {ours.text}, not {peer.text}")
    return found
