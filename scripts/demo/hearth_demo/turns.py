"""Lessons that span turns: follow-ups that need the turn before, two tools for one wish, and questions about the tools."""

from __future__ import annotations

from . import chat, smalltalk, sums, tools
from .items import Item, assistant, called, finished, returned, system, user
from .words import DIALLED, SWITCHED, Words

OPPOSITE = {"on": "off", "off": "on", "open": "closed", "closed": "open", "locked": "unlocked", "unlocked": "locked"}
AND = """And {x}?|and {x}?|And {x}|and {x}|What about {x}?|what about {x}|How about {x}?|how about {x}?|And what about {x}?|Now {x}|
And now {x}|The same for {x}|Same for {x}|Then {x}?|Also {x}|Ok, and {x}?|Thanks. And {x}?|{x}?|{x} too|And for {x}?|Do the same for {x}""".replace(
    "\n", ""
).split("|")
PLACE = """And in {x}?|And in {x}?|and in {x}?|And in {x}|and in {x}|What about in {x}?|And how is it in {x}?|In {x}?|And over in {x}?|
And today in {x}?|Is it the same in {x}?|How is it in {x}?|And what is it like in {x}?""".replace("\n", "").split("|")
ABOUT = "And about {x}?|And on {x}?|and about {x}?|What about {x}?|Anything about {x}?|Anything on {x}?".split("|")
SAME_DEVICE = """Turn it {s}|Now turn it {s}|Turn it {s} again|And now {s}|Now {s} again|Switch it {s}|Switch it {s} again|
Make it {s}|No, {s}|I meant {s}|And {s} again|Set it to {s}|It should be {s}|Sorry, {s} please""".replace(
    "\n", ""
).split("|")
SAME_EVENT = {
    "day": "The same on {x}|And on {x}|Also on {x}|Once more on {x}|And the same on {x}|Same on {x}|Add it on {x} too|Repeat that on {x}",
    "time": "And at {x}|Also at {x}|The same at {x}|Once more at {x}|And again at {x}|Same day at {x}|Add it at {x} too",
    "title": "And {x}|Also {x}|And {x} at the same time|Same time for {x}|Then {x} too|And add {x}|Also add {x}",
}


def _weather(words: Words, first: tools.Request) -> tools.Request:
    then = tools.request(words, "get_weather")
    then.text = words.rng.choice(PLACE if words.rng.random() < 0.6 else AND).format(x=then.arguments["city"])
    return then


def _one_slot(words: Words, first: tools.Request) -> tools.Request:
    then = tools.request(words, first.tool)
    (value,) = then.arguments.values()
    news = first.tool == "search_news" and words.rng.random() < 0.4
    then.text = words.rng.choice(ABOUT if news else AND).format(x=value)
    return then


def _device(words: Words, first: tools.Request) -> tools.Request:
    """The same device in another state, or another device in the same state."""
    rng, device, state = words.rng, first.arguments["device"], first.arguments["state"]
    if rng.random() < 0.5:
        state = OPPOSITE.get(state) or f"{rng.randint(1, 99)}" + rng.choice(("", "%", " degrees"))
        text = rng.choice(SAME_DEVICE).format(s=state)
    else:
        device = words.device(SWITCHED if state in ("on", "off") else DIALLED)
        text = rng.choice(AND).format(x=f"the {device}")
    arguments = {"device": device, "state": state}
    return tools.Request(
        "set_device",
        text,
        arguments,
        rng.choice(('{"ok": true}', "ok", "done")),
        tools.set_to(**arguments),
        [device, state],
    )


def _event(words: Words, first: tools.Request) -> tools.Request:
    rng, arguments = words.rng, dict(first.arguments)
    key = rng.choice(("day", "time", "title"))
    arguments[key] = {"day": words.day, "time": words.time, "title": words.title}[key]()
    text = rng.choice(SAME_EVENT[key].split("|")).format(x=arguments[key])
    return tools.Request(
        "add_event",
        text,
        arguments,
        rng.choice(('{"status": "ok"}', "ok", "done")),
        tools.added(**arguments),
        [*arguments.values()],
    )


NEXT = {
    "get_weather": (_weather, 34), "get_quote": (_one_slot, 14), "search_news": (_one_slot, 10), "search_wiki": (_one_slot, 10),
    "set_device": (_device, 18), "add_event": (_event, 14),
}  # fmt: skip


def _same_tool(words: Words) -> Item:
    rng = words.rng
    name = rng.choices(list(NEXT), [weight for _, weight in NEXT.values()])[0]
    first = tools.request(words, name)
    then = NEXT[name][0](words, first)
    messages = [*system(words, 0.2), *finished(first)]
    if rng.random() < 0.12:
        messages += finished(then)
        then = NEXT[name][0](words, then)
    rest = finished(then) if words.split == "train" else finished(then)[:2]
    return Item("follow-up", [*messages, *rest], tools.toolset(rng, name), then.quotes)


MORE = {
    "+": "And plus {x}?|plus {x}|And plus {x}|Add {x}|Now add {x}|And if I add {x}?|+ {x}|And {x} more?",
    "-": "And minus {x}?|minus {x}|And minus {x}|Subtract {x}|Take away {x}|Now take away {x}|- {x}|And {x} less?",
    "*": "And times {x}?|times {x}|And times {x}|Multiply that by {x}|Now times {x}|* {x}|Times {x}?",
}


def _same_sum(words: Words) -> Item:
    """The next sum starts from the last result, or is of the same kind."""
    rng = words.rng
    first = sums.draw(words)
    while first.result < 0:
        first = sums.draw(words)
    asked = rng.choice(sums.ASKED).format(e=rng.choice(sums.FORMS[first.sign]).format(a=first.a, b=first.b))
    messages = [user(asked), assistant(str(first.result), first.thought())]
    if rng.random() < 0.65:
        while True:
            sign = rng.choice("++--*" if first.result <= sums.TABLE else "+-")
            then = sums.Sum(first.result, sign, rng.randint(1, 12 if sign == "*" or rng.random() < 0.5 else 99))
            if then.result >= 0:
                break
        text = rng.choice(MORE[then.sign].split("|")).format(x=then.b)
    else:
        then = sums.draw(words)
        text = rng.choice(AND).format(x=rng.choice(sums.FORMS[then.sign]).format(a=then.a, b=then.b))
    item = sums.answered(words, text, str(then.result), then, "follow-up")
    item.messages[-2:-2] = messages
    return item


RECALL = "What is my name?|what's my name?|Do you remember my name?|Who am I?|What did I say my name is?|Tell me my name|How am I called?|my name?".split(
    "|"
)
AGAIN = "Repeat that|Say that again|What did you say?|Again please|Can you repeat that?|Pardon?|Sorry, what?|Once more please|Please say that again".split(
    "|"
)


def _recall(words: Words) -> Item:
    rng, messages = words.rng, system(words, 0.15)
    if rng.random() < 0.55:
        name = words.name()
        messages += [user(rng.choice(smalltalk.MY_NAME).format(n=name)), assistant(smalltalk.welcome(name))]
        if rng.random() < 0.4:
            said, answer = rng.choice(smalltalk.TALK)
            messages += [user(rng.choice(said.split("|"))), assistant(answer)]
        return Item(
            "follow-up", [*messages, user(rng.choice(RECALL)), assistant(f"Your name is {name}.")], None, [name]
        )
    (said, answer), thought = smalltalk.chat(words), ""
    if rng.random() < 0.5:
        wanted = sums.draw(words)
        said, answer, thought = f"What is {wanted.a} {wanted.sign} {wanted.b}?", str(wanted.result), wanted.thought()
    messages += [user(said), assistant(answer, thought)]
    return Item("follow-up", [*messages, user(rng.choice(AGAIN)), assistant(answer)], None, [answer])


def follow_up(words: Words) -> Item:
    return words.rng.choices((_same_tool, _same_sum, _recall), (62, 25, 13))[0](words)


BOTH = """{a} and {b}|{a} and {b}|{a} and {b}?|{a}, and {b}|{a} and also {b}|{a}? {b}?|{a}. {b}.|{a}. Also, {b}|{a}; {b}|{a}, {b}|
Two things: {a} and {b}|{a} plus {b}|I need two things: {a}, {b}|{a}\n{b}|At once: {a} and {b}|Both: {a}, {b}""".replace(
    "|\n", "|"
).split("|")
ORDERED = """First {a}, then {b}|first {a}, then {b}|{a}, then {b}|{a} and then {b}|{a}. Then {b}.|{a}. After that, {b}|First {a}. After that {b}.|
{a}, and after that {b}|Start with this: {a}. Then {b}|Do this first: {a}. Next: {b}|{a}. When that is done, {b}|
{a}. Once you know, {b}|One after the other: {a}, {b}|1. {a} 2. {b}|Before you {b}, {a}""".replace("\n", "").split("|")
SLOT = {
    "get_weather": ("weather", "c", "city"),
    "get_quote": ("quote", "s", "symbol"),
    "search_news": ("news", "t", "topic"),
}


def _wish(words: Words, tool: str | None = None) -> tools.Request:
    """A wish that is short enough for two of them in one conversation, and no list in itself."""
    while True:
        request = tools.request(words, tool)
        listed = any(", " in value or " and " in value for value in request.arguments.values())
        if len(request.text) < 70 and len(request.result) < 150 and not listed:
            return request


def _bare(text: str, first: bool) -> str:
    text = text.rstrip("?.! ")
    return text if first or text[:2].isupper() or text.startswith("I ") else text[0].lower() + text[1:]


def _two(words: Words) -> tuple[tools.Request, tools.Request]:
    first = _wish(words)
    while True:
        second = _wish(words, first.tool if words.rng.random() < 0.2 else None)
        if second.arguments != first.arguments:
            return first, second


def _joined(words: Words, forms: list[str], first: tools.Request, second: tools.Request) -> str:
    form = words.rng.choice(forms)
    starts = form.startswith("{a}")
    return form.replace("{a}", _bare(first.text, starts)).replace("{b}", _bare(second.text, False))


def at_once(words: Words) -> Item:
    """One wish with two parts that do not depend on each other: two calls in one message, then one answer."""
    rng = words.rng
    if rng.random() < 0.45:
        tool = rng.choice(list(SLOT) + ["get_weather", "set_device"])
        first, second = _wish(words, tool), _wish(words, tool)
        while second.arguments == first.arguments:
            second = _wish(words, tool)
        link = rng.choice((" and ", " and ", " and ", ", ", " and in " if tool == "get_weather" else " and "))
        if tool == "set_device":
            state = rng.choice(("on", "off"))
            devices = [words.device(SWITCHED) for _ in range(2)]
            if devices[0] == devices[1]:
                devices[1] = f"{words.fresh(False)} {devices[0]}"
            pair = [{"device": device, "state": state} for device in devices]
            first, second = (tools.Request(tool, "", one, "ok", tools.set_to(**one), [*one.values()]) for one in pair)
            the = rng.choice((" and the ", " and ", " and the "))
            text = tools.plainly(rng, "switch", d=the.join(devices), x=state)
        else:
            kind, slot, key = SLOT[tool]
            text = tools.plainly(rng, kind, **{slot: first.arguments[key] + link + second.arguments[key]})
    else:
        first, second = _two(words)
        text = _joined(words, BOTH, first, second)
    both = [returned(first), returned(second), assistant(f"{first.answer} {second.answer}")]
    end = 3 if words.split == "train" or rng.random() < 0.5 else 0
    messages = [*system(words, 0.2), user(text), called(first, second), *both[:end]]
    return Item("two calls at once", messages, _offered(words, first, second), [*first.quotes, *second.quotes])


def in_a_row(words: Words) -> Item:
    """One wish with two steps: call, result, call, result, and one answer from both results."""
    rng = words.rng
    first, second = _two(words)
    text = _joined(words, ORDERED, first, second)
    steps = [
        called(first),
        returned(first),
        called(second),
        returned(second),
        assistant(f"{first.answer} {second.answer}"),
    ]
    end = 5 if words.split == "train" else rng.choice((1, 3, 5))
    messages = [*system(words, 0.2), user(text), *steps[:end]]
    return Item("two tools in a row", messages, _offered(words, first, second), [*first.quotes, *second.quotes])


def _offered(words: Words, *requests: tools.Request) -> list[dict]:
    return tools.toolset(words.rng, *{request.tool: None for request in requests})


CAN_CALL = """Can you call tools?|can you call tools?|Can you call functions?|Can you use tools?|can you use tools|Do you support tools?|
Do you support function calling?|Are you able to call tools?|Do you know how to call a tool?|Can you do tool calls?|
Can you call a function?|Do you do function calling?|Is tool calling supported?|Could you use a tool?""".replace(
    "\n", ""
).split("|")
WHICH = """Which tools do you have?|What tools do you have?|what tools do you have|What tools can you use?|Which functions can you call?|
List your tools|Name your tools|Show me your tools|Do you have any tools?|What are your tools?|Which tools can you call?|
What functions do you have?|Tell me about your tools""".replace("\n", "").split("|")


def about_tools(words: Words) -> Item:
    rng, which = words.rng, words.rng.random() < 0.5
    offered = tools.toolset(rng) if rng.random() < 0.6 else None
    if offered:
        names = [tool["function"]["name"] for tool in offered]
        listed = ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
        answer = f"{'' if which else 'Yes. '}I can call {listed}."
    else:
        answer = f"{'None yet' if which else 'Yes'}. Send tools with your message, and I call them."
    text = smalltalk.greeted(words, rng.choice(WHICH if which else CAN_CALL))
    turn: list[chat.Message] = []
    if rng.random() < 0.2:
        said, reply = smalltalk.chat(words)
        turn = [user(said), assistant(reply)]
    return Item("about its tools", [*system(words, 0.25), *turn, user(text), assistant(answer)], offered)
