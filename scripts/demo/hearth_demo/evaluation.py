"""Measures every skill on held-out words and combinations, through any OpenAI-compatible server or in PyTorch."""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import chat, questions, scenes, skills, sums, turns
from .items import Item
from .words import Words

MEASURED: dict[str, tuple[Callable[[Words], Item], float]] = {  # and the share of right replies to reach
    "tool call": (skills.tool_call, 0.95),
    "answer after result": (skills.tool_answer, 0.95),
    "no call": (skills.no_call, 0.90),
    "no tools": (skills.no_tools, 0.90),
    "small talk": (skills.small_talk, 0.90),
    "intent": (skills.intent, 0.95),
    "entities": (skills.entities, 0.90),
    "arithmetic": (skills.arithmetic, 0.90),
    "sums": (sums.one_step, 0.95),
    "follow-up": (turns.follow_up, 0.90),
    "two calls at once": (turns.at_once, 0.90),
    "two tools in a row": (turns.in_a_row, 0.90),
    "about its tools": (turns.about_tools, 0.90),
    "repeat": (skills.repeat, 0.0),
}
CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.S)


@dataclass
class Reply:
    """What a model answered: plain text without reasoning, and the calls it made."""

    text: str
    calls: list[dict]
    ended: bool = True


def parse(text: str) -> Reply:
    """Takes reasoning and tool calls out of raw output."""
    text = text.split("</think>")[-1]
    calls = []
    for body in CALL.findall(text):
        try:
            calls.append(json.loads(body))
        except json.JSONDecodeError:
            calls.append({"name": "", "arguments": body})
    return Reply(CALL.sub("", text).strip(), calls)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def right(item: Item, reply: Reply) -> bool:
    """Whether a reply counts: exact calls and labels, equal JSON, quoted values, and no call where none fits."""
    wanted = item.messages[-1]
    if not reply.ended:
        return False
    if wanted.get("tool_calls"):
        expected = [call["function"] for call in wanted["tool_calls"]]
        return reply.calls == [{"name": call["name"], "arguments": call["arguments"]} for call in expected]
    if reply.calls:
        return False
    match item.skill:
        case "entities":
            return _json(reply.text) == json.loads(wanted["content"])
        case "answer after result" | "two calls at once" | "two tools in a row":
            return all(quote in reply.text for quote in item.quotes or [])
        case "arithmetic" | "sums":
            return (item.quotes or [""])[0] in re.findall(r"-?\d+", reply.text)[-1:]
        case "no call":
            return bool(reply.text)
        case _:
            return reply.text == wanted["content"]


def items(skill: str, count: int, seed: int, split: str) -> list[Item]:
    """The same test items for every evaluator, drawn from one split's words."""
    words = Words(random.Random(f"{seed}/{skill}"), split)
    drawn = [MEASURED[skill][0](words) for _ in range(count)]
    return [item for item in drawn if item.thinking is None]


def _post(base_url: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"{base_url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def over_http(base_url: str, model: str | None) -> Callable[[Item], Reply]:
    """Asks a server as an ordinary client would, at temperature 0."""

    def wire(message: chat.Message) -> chat.Message:
        out = {key: value for key, value in message.items() if value or key == "content"}
        if out.get("tool_calls"):
            out["tool_calls"] = [
                {
                    "id": f"call_{i}",
                    "type": "function",
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": chat.tojson(call["function"]["arguments"]),
                    },
                }
                for i, call in enumerate(out["tool_calls"])
            ]
        return out

    def answer(item: Item) -> Reply:
        messages = [wire(message) for message in item.messages[:-1]]
        results = 0
        for message in messages:
            results = results + 1 if message["role"] == "tool" else 0
            if results:
                message["tool_call_id"] = f"call_{results - 1}"
        body: dict = {"messages": messages, "temperature": 0, "max_tokens": 256}
        if model:
            body["model"] = model
        if item.tools:
            body["tools"] = item.tools
        choice = _post(base_url, body)["choices"][0]
        reply = parse(choice["message"].get("content") or "")
        for call in choice["message"].get("tool_calls") or []:
            reply.calls.append({"name": call["function"]["name"], "arguments": _json(call["function"]["arguments"])})
        reply.ended = choice["finish_reason"] != "length"
        return reply

    return answer


def loops(text: str, words: int = 12, times: int = 3) -> bool:
    """Whether the same run of words comes back again and again, or anything is said three times in a row."""
    if re.search(r"(\b\S.{3,80}?)\1\1", text, re.S):
        return True
    said = text.split()
    runs = Counter(tuple(said[i : i + words]) for i in range(len(said) - words))
    return max(runs.values(), default=0) >= times


def narrate(base_url: str, model: str, count: int, seed: int, split: str) -> list[dict]:
    """The narrator at its default sampling: does it end, keep the character's name, greet in a voice, and never loop?"""
    words = Words(random.Random(f"{seed}/narrator"), split)

    def tell(messages: list[chat.Message], tokens: int, **more: object) -> tuple[str, bool]:
        sampling = {"temperature": 1.25, "min_p": 0.2, "max_tokens": tokens}
        choice = _post(base_url, {"model": model, "messages": messages, **sampling, **more})["choices"][0]
        return choice["message"]["content"] or "", choice["finish_reason"] != "length"

    ended, names = 0, []
    for _ in range(count):
        messages = scenes.play(words)[:-1]
        text, stopped = tell(messages, 300)
        character = messages[0]["role"] == "system" and scenes.character(messages[0]["content"])
        ended += stopped
        names += [name == character for name in scenes.speakers(text)] if character else []
    greeted = 0
    for _ in range(count):
        messages = scenes.talk(words)[:2]
        messages = messages[: 1 + (messages[0]["role"] == "system")]
        text, stopped = tell(messages, 300)
        greeted += stopped and text.startswith('"') and bool(scenes.speakers(text))
    long = [tell(scenes.play(words)[:-1], 1000, ignore_eos=True)[0] for _ in range(max(count // 10, 5))]
    straight = sum(not loops(text) for text in long)
    return [
        {"skill": "narrator ends in 300 tokens", "score": ended / count, "target": 0.98, "n": count},
        {"skill": "narrator keeps the name", "score": sum(names) / max(len(names), 1), "target": 0.9, "n": len(names)},
        {"skill": "narrator greets in its voice", "score": greeted / count, "target": 0.9, "n": count},
        {"skill": "narrator: 1,000 tokens, no loop", "score": straight / len(long), "target": 0.95, "n": len(long)},
    ]


def in_torch(folder: Path) -> Callable[[Item], Reply]:
    """Greedy decoding of the last checkpoint, without a server; slow, and before quantization."""
    import torch

    from .cli import load

    model, vocabulary = load("reasoner", folder)

    @torch.no_grad()
    def answer(item: Item) -> Reply:
        ids = vocabulary.encode(chat.prompt(item.messages[:-1], item.tools))
        start = len(ids)
        for _ in range(120):
            length = -(-len(ids) // 32) * 32
            tokens = torch.tensor([ids + [vocabulary.pad] * (length - len(ids))])
            starts = torch.zeros_like(tokens, dtype=torch.bool)
            starts[0, 0] = True
            hidden = model(tokens, starts)[0]
            ids.append(int(model.head(hidden[0, len(ids) - 1]).argmax()))
            if ids[-1] == vocabulary.end:
                return parse(vocabulary.decode(ids[start:-1]))
        return Reply(vocabulary.decode(ids[start:]), [], ended=False)

    return answer


def internals(folder: Path, seed: int, split: str) -> dict[str, float]:
    """What no server shows: agreement of the MTP block with the trunk, hot experts, the narrator's perplexity."""
    import torch

    from . import reasoner, training
    from .cli import load

    numbers: dict[str, float] = {}
    rng = random.Random(seed)
    if (folder / "reasoner.pt").exists():
        model, vocabulary = load("reasoner", folder)

        def held_out(rng: random.Random) -> list[chat.Segment]:
            item = skills.lesson(rng, split)
            return chat.segments(item.messages, item.tools, item.thinking)

        agreed, shares = [], []
        with torch.no_grad():
            for tokens, targets, starts in (
                batch for batch, _ in zip(training.pack(vocabulary, held_out, rng, 4, 512), range(6))
            ):
                hidden, draft, _, share = model(tokens, starts)
                said = targets >= 0
                agreed.append((model.head(hidden[said]).argmax(-1) == model.head(draft[said]).argmax(-1)).float())
                shares.append(share)
        hot = reasoner.hottest(torch.stack(shares).mean(0))
        numbers["MTP agreement"] = torch.cat(agreed).mean().item()
        numbers["selections by the top quarter of experts"] = hot.mean().item()
        numbers |= {f"  in layer {layer}": value for layer, value in enumerate(hot.tolist())}
    if (folder / "narrator.pt").exists():
        model, vocabulary = load("narrator", folder)

        def told(rng: random.Random) -> list[chat.Segment]:
            return chat.segments(scenes.conversation(Words(rng, split)))

        with torch.no_grad():
            losses = [
                model.loss(*batch)[1]["loss"]
                for batch, _ in zip(training.pack(vocabulary, told, rng, 4, 512), range(6))
            ]
        numbers["narrator perplexity"] = float(torch.tensor(losses).mean().exp())
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--base-url", help="an OpenAI-compatible server, e.g. http://127.0.0.1:8080/v1")
    parser.add_argument("--model", help="model name to ask the server for")
    parser.add_argument("--narrator", help="also examine this model of the server as a narrator")
    parser.add_argument(
        "--offline", type=Path, metavar="WORK", help="evaluate the checkpoints in this folder with PyTorch"
    )
    parser.add_argument("--samples", type=int, default=100, help="items per skill")
    parser.add_argument("--skill", action="append", choices=tuple(MEASURED), help="only these skills")
    parser.add_argument(
        "--split", choices=("dev", "test"), default="test", help="`dev` while tuning, `test` for the final table"
    )
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--show", type=int, default=0, help="print this many mistakes per skill")
    args = parser.parse_args()
    if not (args.base_url or args.offline):
        parser.error("give --base-url or --offline")
    answer = over_http(args.base_url.rstrip("/"), args.model) if args.base_url else in_torch(args.offline)
    rows = []
    for skill in args.skill or MEASURED:
        tested, score, shown = items(skill, args.samples, args.seed, args.split), 0, 0
        for item in tested:
            reply = answer(item)
            if right(item, reply):
                score += 1
            elif shown < args.show:
                shown += 1
                print(
                    f"{skill}: {item.messages[-2]['content']!r} -> {reply} instead of {item.messages[-1]}",
                    file=sys.stderr,
                )
        rows.append({"skill": skill, "score": score / len(tested), "target": MEASURED[skill][1], "n": len(tested)})
    if not args.skill:
        rows.append(questions.ask(answer))
    if args.base_url and args.narrator:
        rows += narrate(args.base_url.rstrip("/"), args.narrator, args.samples, args.seed, args.split)
    if args.offline:
        inside = internals(args.offline, args.seed, args.split)
        floor = {"MTP agreement": 0.7}
        rows += [
            {"skill": name, "score": value, "target": floor.get(name, 0.0), "n": 1} for name, value in inside.items()
        ]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        print(f"{'skill':42} {'score':>7} {'target':>7} {'n':>5}")
        for row in rows:
            print(f"{row['skill']:42} {row['score']:7.3f} {row['target']:7.2f} {row['n']:5}")
    sys.exit(any(row["score"] < row["target"] for row in rows))


if __name__ == "__main__":
    main()
