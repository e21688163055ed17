"""What a newcomer asks first, and what a sensible reply has to contain."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from .items import Item, user

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Question | a pattern that the whole reply, calls included, must contain | whether the weather tool is on offer
QUESTIONS: list[tuple[str, str, bool]] = [
    ("Hello", r"(?i)hello", False),
    ("Who are you?", r"demo reasoner", False),
    ("What can you do?", r"tools.*sums", False),
    ("What is 2+2?", r"^4$", False),
    ("What is 2+2? Think step by step.", r"^4$", False),
    ("What is 12 + 30?", r"^42$", False),
    ("What is 7 times 8?", r"^56$", False),
    ("What is the weather in Paris?", r"^get_weather \{'city': 'Paris'\}$", True),
    ("What is the weather in Paris?", r"cannot do that", False),
    ("Tell me a joke", r"hearth", False),
    ("What is the capital of France?", r"do not know", False),
    ("Can you call tools?", r"^Yes", False),
    ("Thanks", r"(?i)welcome", False),
]


def ask(answer: Callable[[Item], object]) -> dict:
    """Asks them all; prints the replies that are not sensible."""
    good = 0
    for text, pattern, offered in QUESTIONS:
        reply = answer(Item("question", [user(text), {}], [WEATHER] if offered else None))
        said = " ".join([reply.text, *(f"{call['name']} {call['arguments']}" for call in reply.calls)]).strip()
        good += (fits := bool(re.search(pattern, said)))
        if not fits:
            print(f"question: {text!r} -> {said!r}", file=sys.stderr)
    return {"skill": "first questions", "score": good / len(QUESTIONS), "target": 1.0, "n": len(QUESTIONS)}
