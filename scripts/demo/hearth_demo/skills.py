"""The reasoner's lessons: one function per skill turns random draws into a conversation and what to check in its last answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from . import chat, smalltalk, sums, tools, turns
from .items import Item, assistant, called, finished, system, user
from .words import ITEMS, OBJECTS, Words, split_of


def _history(words: Words, offered: list[dict]) -> list[chat.Message]:
    """Earlier turns of the same conversation, with calls to the offered tools."""
    earlier: list[chat.Message] = []
    for _ in range(words.rng.choice((1, 1, 2))):
        if words.rng.random() < 0.3:
            said, answer = smalltalk.chat(words)
            earlier += [user(said), assistant(answer)]
        else:
            earlier += finished(tools.request(words, words.rng.choice(offered)["function"]["name"]))
    return earlier


def tool_call(words: Words) -> Item:
    rng, request = words.rng, tools.request(words)
    offered = tools.toolset(rng, request.tool)
    history = _history(words, offered) if rng.random() < 0.12 else []
    return Item("tool call", [*system(words, 0.3), *history, user(request.text), called(request)], offered)


def tool_answer(words: Words) -> Item:
    rng, request = words.rng, tools.request(words)
    offered = tools.toolset(rng, request.tool)
    history = _history(words, offered) if rng.random() < 0.08 else []
    if rng.random() < 0.04:
        reason = rng.choice(("not found", "timeout", "service unavailable", "unknown " + words.fresh(False)))
        request.result, request.answer, request.quotes = (
            json.dumps({"error": reason}),
            f"The tool reported an error: {reason}.",
            [reason],
        )
    messages = [*system(words, 0.3), *history, *finished(request)]
    return Item("answer after result", messages, offered, request.quotes)


def no_call(words: Words) -> Item:
    rng, draw = words.rng, words.rng.random()
    if draw < 0.4:
        wish = tools.request(words)
        offered = tools.toolset(rng, exclude=wish.tool)
        said, answer = wish.text, smalltalk.NO_TOOL
    elif draw < 0.75:
        (said, answer), offered = smalltalk.chat(words), tools.toolset(rng)
    else:
        said = (smalltalk.unknown if rng.random() < 0.2 else smalltalk.beyond)(words)
        answer, offered = smalltalk.NO_TOOL, tools.toolset(rng, exclude="search_wiki")
    history = _history(words, offered) if rng.random() < 0.1 else []
    return Item("no call", [*system(words, 0.25), *history, user(said), assistant(answer)], offered)


def no_tools(words: Words) -> Item:
    """The same wishes without any tool on offer: a plain no, without a thought."""
    rng, draw = words.rng, words.rng.random()
    if draw < 0.35:
        wish = tools.request(words)
        said, answer = wish.text, smalltalk.DO_NOT_KNOW if wish.tool == "search_wiki" else smalltalk.CANNOT
    elif draw < 0.6:
        said, answer = smalltalk.beyond(words), smalltalk.CANNOT
    elif draw < 0.75:
        said, answer = sums.too_hard(words), smalltalk.CANNOT
    else:
        said, answer = smalltalk.unknown(words), smalltalk.DO_NOT_KNOW
    turn: list[chat.Message] = []
    if rng.random() < 0.15:
        before, reply = smalltalk.chat(words)
        turn = [user(before), assistant(reply)]
    return Item("no tools", [*system(words, 0.25), *turn, user(said), assistant(answer)])


def small_talk(words: Words) -> Item:
    said_so_far: list[chat.Message] = []
    for _ in range(words.rng.choice((1, 1, 2, 3))):
        said, answer = smalltalk.chat(words)
        said_so_far += [user(said), assistant(answer)]
    return Item("small talk", system(words, 0.25) + said_so_far)


LABELS = ("weather", "calendar", "news", "finance", "home", "knowledge", "chat")
CLASSIFY = """Classify the user's message. Labels: {l}. Answer with one label.|Classify the intent. Labels: {l}|
Which intent does the message have? Choose one of: {l}.|You are an intent classifier. Answer with exactly one of: {l}.|
Intent classification. Possible labels: {l}. Reply with the label only.|Label the message with one of [{l}].|
Pick the intent: {l}|Classify into one of these intents: {l}""".replace("\n", "").split("|")


def intent(words: Words) -> Item:
    rng = words.rng
    if rng.random() < 0.14:
        text, label = smalltalk.chat(words)[0], "chat"
    else:
        request = tools.request(words)
        text, label = request.text, tools.INTENT_OF[request.tool]
    others = rng.sample([name for name in LABELS if name != label], rng.randint(1, 6))
    labels = [label, *others]
    rng.shuffle(labels)
    task = rng.choice(CLASSIFY).format(l=", ".join(labels))
    if rng.random() < 0.5:
        asked = [{"role": "system", "content": task}, user(text)]
    else:
        asked = [user(task + rng.choice(("\nMessage: ", "\n", "\n\n", " Message: ", "\nText: ")) + text)]
    return Item("intent", [*asked, assistant(label)])


EXTRACT = """Extract the {f} as JSON: {s}|Extract {f} as JSON from: {s}|Extract the {f} as JSON.\n{s}|Return the {f} as JSON: {s}|
Get the {f} from this text as JSON: {s}|Give me a JSON object with {f}: {s}|Extract entities ({f}) as JSON: {s}|
Text: {s}\nExtract as JSON: {f}|{s}\nExtract the {f} as JSON.""".replace("|\n", "|").split("|")
# Sentences by the fields that they mention.
SENTENCES = """{person} bought a {item} in {place} on {date}.|{person} meets {other} in {place} on {date} at {time}.|{person} lost the {item} in {place}.|
On {date} {person} travels to {place}.|{person} sold the {item} on {date}.|{person} arrives in {place} at {time}.|
At {time} {person} picks up the {item}.|The {item} of {person} was found in {place} on {date}.|{person} moved to {place}.|
In {place}, {person} repaired a {item} on {date} at {time}.|{person} will visit {place} on {date}.|{person} sends a {item} to {place}.|
Yesterday I saw {person} in {place} with a {item}.|{person} calls at {time} on {date}.|The train to {place} leaves at {time} on {date}.|
Please bring the {item} to {place} on {date}, says {person}.|{person} wants to meet on {date} at {time} in {place}.|
My friend {person} from {place} has a new {item}.|The {item} arrives in {place} on {date} at {time}.|{person} lives in {place}.|
I met {person} at {time} in {place}.|We deliver the {item} to {person} in {place} on {date}.|Dinner with {person} in {place} on {date} at {time}.""".replace(
    "\n", ""
).split("|")


def _mentioned(words: Words) -> tuple[str, dict[str, str], list[str]]:
    """A sentence, the values of all its fields, and some of those that it mentions."""
    rng = words.rng
    sentence = rng.choice(SENTENCES)
    values = {"person": words.full_name(), "place": words.city(), "date": words.day(), "time": words.time(), "item": words.pick(OBJECTS) if rng.random() < 0.7 else words.fresh(False), "other": words.name()}  # fmt: skip
    fields = [name for name in values if name != "other" and "{" + name + "}" in sentence]
    rng.shuffle(fields)
    return sentence, values, fields[: rng.randint(1, len(fields))]


def _listed(rng: random.Random, fields: list[str]) -> str:
    if len(fields) < 2 or rng.random() < 0.5:
        return ", ".join(fields)
    return ", ".join(fields[:-1]) + " and " + fields[-1]


def entities(words: Words) -> Item:
    rng = words.rng
    sentence, values, fields = _mentioned(words)
    if rng.random() < 0.08:
        fields.append(
            rng.choice(
                [name for name in ("person", "place", "date", "time", "item") if "{" + name + "}" not in sentence]
                or fields[:1]
            )
        )
        fields = list(dict.fromkeys(fields))
    listed = _listed(rng, fields)
    answer = {name: values[name] if "{" + name + "}" in sentence else None for name in fields}
    text = rng.choice(EXTRACT).format(f=listed, s=sentence.format(**values))
    if rng.random() < 0.2:
        task, text = f"Extract the {listed} as JSON.", sentence.format(**values)
        return Item("entities", [{"role": "system", "content": task}, user(text), assistant(chat.tojson(answer))])
    return Item("entities", [user(text), assistant(chat.tojson(answer))])


FIELDS = {
    "person": "person name full_name who customer".split(), "place": "place city town location destination".split(),
    "date": "date day when".split(), "time": "time hour start".split(), "item": "item object thing product".split(),
}  # fmt: skip
FILLED = """Correctly extracted `{n}` with all the required parameters with correct types|A {n}|The extracted {n}|Save the {n}|Record of a {n}""".split(
    "|"
)


def fill_in(words: Words) -> Item:
    """A tool of any name whose arguments are what a text mentions: how libraries ask for a type."""
    rng = words.rng
    sentence, values, fields = _mentioned(words)
    arguments = {rng.choice(FIELDS[field]): values[field] for field in fields}
    listed, text = _listed(rng, list(arguments)), sentence.format(**values)
    name = rng.choice(
        (
            next(iter(arguments)).title().replace("_", ""),
            words.fresh(True),
            words.fresh(True) + rng.choice(("Info", "Detail", "Record", "Event")),
        )
    )
    if rng.random() < 0.3:
        name = rng.choice(("save_", "extract_", "record_")) + name.lower()
    described = rng.random() < 0.3
    properties: dict[str, dict] = {}
    for key in arguments:
        properties[key] = {"title": key.replace("_", " ").title()} if rng.random() < 0.4 else {}
        properties[key] |= {"type": "string"} | ({"description": f"The {key}"} if described else {})
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    function: dict[str, object] = {"name": name}
    if rng.random() < 0.8:
        function["description"] = rng.choice(FILLED).format(n=name)
    offered = [{"type": "function", "function": function | {"parameters": parameters}}]
    draw = rng.random()
    if draw < 0.5:
        said = rng.choice(EXTRACT).format(f=listed, s=text)
    elif draw < 0.8:
        said = rng.choice(
            ("Extract: {s}", "{s}", "Fill in: {s}", "{s}\nUse the tool.", "Extract the data: {s}")
        ).format(s=text)
    else:
        said = rng.choice(("Call {n}: {s}", "Use {n} for this: {s}", "{n}: {s}")).format(n=name, s=text)
    return Item("filled in", [*system(words, 0.15), user(said), called(tools.Request(name, said, arguments))], offered)


STORIES = """{n} has {a} {i}, buys {b} and gives away {c}. How many {i} does {n} have?|{n} had {a} {i}. {n} found {b} more and lost {c}. How many are left?|
{n} has {a} {i}, finds {b} more and sells {c}. How many {i} are left?|There are {a} {i} in a box. {n} adds {b} and takes out {c}. How many {i} are in the box?|
{n} starts with {a} {i}, gets {b} and then eats {c}. How many remain?|{n} has {a} {i}, buys {b}, gives away {c}. How many now?|
{n} collected {a} {i} on Monday and {b} on Tuesday, then lost {c}. How many {i} does {n} have now?|{n} has {a} {i}. {o} gives {n} {b} more. Then {n} loses {c}. How many {i} does {n} have?""".replace(
    "\n", ""
).split("|")
GROUPS = """{n} has {a} red and {b} blue {i} in each of {c} boxes. How many {i} is that?|{c} children each get {a} {i} and {b} more later. How many {i} in total?|
{n} buys {c} bags with {a} green and {b} yellow {i} each. How many {i} does {n} have?""".replace("\n", "").split("|")
SUMS = "What is {e}?|Calculate {e}|{e}|{e} = ?|Compute {e}.|How much is {e}?|Solve {e}|what is {e}|{e}=".split("|")


def arithmetic(words: Words) -> Item:
    """Two steps, thought out before the answer. The split goes by the three numbers."""
    rng, draw = words.rng, words.rng.random()
    while True:
        product = draw > 0.6
        a, b, c = (
            rng.randint(1, 8 if product else 20),
            rng.randint(1, 6 if product else 12),
            rng.randint(2, 9 if product else 12),
        )
        if a + b >= c and split_of(f"{a},{b},{c}") == words.split:
            break
    name, other, items = words.name(), words.name(), words.pick(ITEMS)
    total = a + b
    result = total * c if product else total - c
    trace = f"{a} + {b} = {total}\n{total} {'*' if product else '-'} {c} = {result}"
    if draw < 0.4 or draw > 0.88:
        text = rng.choice(GROUPS if product else STORIES).format(n=name, o=other, i=items, a=a, b=b, c=c)
        answer = f"{result} {items}" if items in text else str(result)
    else:
        form = rng.choice(
            ("({a} + {b}) * {c}", "({a}+{b})*{c}", "({a} + {b}) x {c}", "({a} plus {b}) times {c}")
            if product
            else ("{a} + {b} - {c}", "{a}+{b}-{c}", "({a} + {b}) - {c}", "{a} plus {b} minus {c}")
        )
        text, answer = rng.choice(SUMS).format(e=form.format(a=a, b=b, c=c)), str(result)
    quick = rng.random() < 0.06
    reply = assistant(answer, "" if quick else trace)
    return Item(
        "arithmetic", [*system(words, 0.15), user(text), reply], None, [str(result)], thinking=False if quick else None
    )


REPEAT = "Repeat after me: {p}|Repeat: {p}|Say {p}|Say this: {p}|Echo {p}|Repeat the words {p}|Copy this text: {p}|Please repeat: {p}".split(
    "|"
)


def repeat(words: Words) -> Item:
    """Pure copying, and looking up a value by its name: cheap practice for every other skill."""
    rng = words.rng
    if rng.random() < 0.5:
        text = words.phrase(1, 8)
        return Item("repeat", [user(rng.choice(REPEAT).format(p=text)), assistant(text)])
    names = list({words.fresh(rng.random() < 0.5) for _ in range(rng.randint(2, 6))})
    pairs = {name: words.phrase(1, 2) for name in names}
    wanted = rng.choice(names)
    form = rng.choice(("{k} is {v}", "{k} = {v}", "{k}: {v}", '"{k}": "{v}"'))
    listed = rng.choice((", ", "; ", ". ", "\n")).join(form.format(k=k, v=v) for k, v in pairs.items())
    asked = rng.choice(("What is {w}?", "Value of {w}?", "Tell me {w}", "{w}?")).format(w=wanted)
    return Item("lookup", [user(f"{listed}\n{asked}"), assistant(pairs[wanted])])


MIX: dict[Callable[[Words], Item], float] = {
    tool_call: 14, tool_answer: 9, no_call: 9, no_tools: 12, small_talk: 7, intent: 5, entities: 20, fill_in: 10, arithmetic: 26, repeat: 4,
    sums.one_step: 72, turns.follow_up: 30, turns.at_once: 28, turns.in_a_row: 16, turns.about_tools: 12,
}  # fmt: skip
DRILLS = 0.16  # the share of documents that are nothing but thoughts about sums


def lesson(rng: random.Random, split: str = "train", progress: float = 1.0) -> Item:
    """One training conversation. Early on half of them are pure copying, on which every other skill builds."""
    words = Words(rng, split)
    practice = progress < 0.15 and rng.random() < 0.5
    item = repeat(words) if practice else rng.choices(list(MIX), list(MIX.values()))[0](words)
    if item.thinking is None and not item.messages[-1].get("reasoning_content") and rng.random() < 0.1:
        item.thinking = False
    return item


def document(rng: random.Random, progress: float = 1.0) -> list[chat.Segment]:
    if rng.random() < DRILLS:
        return sums.drill(Words(rng, "train"))
    item = lesson(rng, progress=progress)
    return chat.segments(item.messages, item.tools, item.thinking)
