"""The six demo tools: their schemas in many wordings, ways to ask for them, results, and answers that quote the results."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

from .words import DIALLED, LOCKED, OPENED, SWITCHED, Words


@dataclass
class Request:
    """One user wish that exactly one tool can fulfil."""

    tool: str
    text: str
    arguments: dict[str, str]
    result: str = ""
    answer: str = ""
    quotes: list[str] = field(default_factory=list)


WEATHER = """What is the weather in {c}?|What's the weather in {c}?|What's the weather like in {c}?|What is the weather like in {c}?|
How is the weather in {c}?|How's the weather in {c}?|How is the weather in {c} today?|What's the weather in {c} today?|
What is the weather in {c} right now?|Weather in {c}?|Weather in {c}|Weather for {c}|weather {c}|{c} weather|
What's the forecast for {c}?|Give me the forecast for {c}|Forecast for {c} please|Tell me the weather in {c}|
Show me the weather in {c}|Is it raining in {c}?|Is it going to rain in {c}?|Will it rain in {c} today?|Is it cold in {c}?|
Is it sunny in {c}?|Is it hot in {c} now?|How warm is it in {c}?|How cold is it in {c}?|What's the temperature in {c}?|
What is the temperature in {c} now?|Do I need an umbrella in {c}?|Should I take a jacket in {c}?|Does it snow in {c}?|
Check the weather in {c}|Get the weather for {c}|Get me the current weather in {c}|current weather in {c}|
Look up the weather in {c}|I am in {c}. What is the weather like?|I am going to {c}, how is the weather there?|
I'm flying to {c}. What's the weather there?|I'd like to know the weather in {c}|Any rain in {c}?|
What will the weather be in {c}?|How does the weather look in {c}?|Is there snow in {c}?|weather report for {c}"""
EVENT = """Add {t} on {d} at {h}|Add {t} to my calendar on {d} at {h}|Add "{t}" on {d} at {h}|Schedule {t} on {d} at {h}|
Schedule {t} for {d} at {h}|Put {t} in my calendar for {d} at {h}|Put {t} on {d} at {h}|Create an event: {t}, {d}, {h}|
Create an event called {t} on {d} at {h}|Book {t} for {d} at {h}|Book {t} on {d}, {h}|Plan {t} on {d} at {h}|
Plan {t} for {d}, {h}|I have {t} on {d} at {h}|Set up {t} on {d} at {h}|New event: {t} on {d} at {h}|{t} on {d} at {h}|
{t}, {d} at {h}|Make an appointment: {t} on {d} at {h}|Remember {t} on {d} at {h}|Note {t} for {d} at {h}|
Calendar: {t}, {d}, {h}|Enter {t} on {d} at {h}|On {d} at {h} I have {t}|On {d} at {h}: {t}|At {h} on {d} add {t}|
Add an event for {d} at {h}: {t}|Save {t} for {d} at {h}|Arrange {t} on {d} at {h}|Add a calendar entry {t} on {d} at {h}|
Block {d} at {h} for {t}|Reserve {d} at {h} for {t}"""
NEWS = """What's the news about {t}?|What is the news about {t}?|News about {t}|news on {t}|Any news about {t}?|Any news on {t}?|
Latest news about {t}|What's new in {t}?|Show me news about {t}|Show me the latest news on {t}|Search the news for {t}|
Search news about {t}|Find news about {t}|Find articles about {t}|Get me the headlines on {t}|Headlines about {t}|
Headlines on {t} please|Tell me the news on {t}|What happened with {t}?|What are the headlines about {t}?|
Look for news on {t}|Give me news about {t}|I want to read news about {t}|What do the papers say about {t}?|
Is there any news about {t}?|Recent news on {t}|Recent articles on {t}|Are there news stories about {t}?|
What is in the news about {t}?|Read me the news about {t}|current news about {t}|Check the news about {t}"""
QUOTE = """What is the price of {s}?|What's the price of {s}?|What is {s} trading at?|What's {s} trading at?|Quote for {s}|
quote {s}|Get me a quote for {s}|Get a quote for {s}|Stock price of {s}|stock price {s}|{s} stock price|{s} stock|
How much is {s}?|How much is {s} worth?|How is {s} doing?|How is {s} stock doing today?|What does {s} cost?|
What's the stock price of {s}?|Check {s}|Check the price of {s}|Price of {s} please|Share price of {s}|
What is the share price of {s}?|How is {s} trading?|Show me {s} shares|Look up the quote of {s}|Show me the quote for {s}|
Tell me the price of {s} stock|Where is {s} today?|Is {s} up today?|What are {s} shares worth?|Give me the {s} quote|
current price of {s}|Look up {s} stock"""
WIKI = """What is {q}?|Who is {q}?|Tell me about {q}|Look up {q}|Look up {q} on Wikipedia|Search Wikipedia for {q}|Wikipedia {q}|
wiki {q}|What do you know about {q}?|Explain {q}|Explain {q} to me|I want to learn about {q}|Find out about {q}|
Give me an overview of {q}|Give me a summary of {q}|Search the wiki for {q}|What does Wikipedia say about {q}?|
Can you find facts about {q}?|Facts about {q}|Define {q}|Information about {q}|I need information about {q}|
Describe {q}|What is meant by {q}?|Read up on {q}|Where does {q} come from?|How does {q} work?|Why is {q} important?|
background on {q}|Find the article on {q}|Who or what is {q}?|I'd like to know more about {q}"""
SWITCH = """Turn {x} the {d}|turn {x} {d}|Turn the {d} {x}|Switch {x} the {d}|Switch the {d} {x}|Put the {d} {x}|{d} {x}|
Please turn the {d} {x}|Power {x} the {d}|I want the {d} {x}|The {d} should be {x}|Make sure the {d} is {x}|Get the {d} {x}|
Set the {d} to {x}|Turn {x} the {d} now|I'd like the {d} {x}|Leave the {d} {x}"""
DIAL = "Set the {d} to {x}|Set {d} to {x}|Put the {d} at {x}|Change the {d} to {x}|Turn the {d} to {x}|{d} to {x}|Adjust the {d} to {x}|I want the {d} at {x}"
VERB = "{v} the {d}|{v} the {d} now|I want you to {v} the {d}|{v} {d}|Make the {d} {x}|The {d} should be {x}|Set the {d} to {x}"
BEFORE = """Please |please |Can you tell me: |Hi! |Hello, |Hey, |Quick question: |Hi there. |Good morning! |Ok, |Now |And |
Could you help? |I have a question. |One more thing: |Thanks. |So, |Hello! |Next: |Hey hearth, """.replace(
    "\n", ""
).split("|")
AFTER = " please| Thanks!| Thank you.| Thanks| Please.| I need it now.| Please be quick.|!|.".split("|")
CAN_YOU = ("Can you ", "Could you ", "Would you ", "Please ", "Can you please ", "I need you to ", "Could you please ")


def _lines(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


PHRASINGS = {
    name: _lines(text)
    for name, text in dict(
        weather=WEATHER, event=EVENT, news=NEWS, quote=QUOTE, wiki=WIKI, switch=SWITCH, dial=DIAL, verb=VERB
    ).items()
}
IMPERATIVES = tuple(
    "Tell Show Give Get Check Look Find Search Add Schedule Put Create Book Plan Set Turn Switch Explain Describe".split()
)


def plainly(rng: random.Random, kind: str, **slots: str) -> str:
    """A phrasing with its slots filled, and nothing around it."""
    return rng.choice(PHRASINGS[kind]).format(**slots)


def _ask(rng: random.Random, kind: str, **slots: str) -> str:
    """A phrasing with its slots filled, sometimes wrapped in politeness or written carelessly."""
    text = rng.choice(PHRASINGS[kind])
    if rng.random() < 0.12:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.1:
        text = text.rstrip("?.")
    if text.startswith(IMPERATIVES) and rng.random() < 0.25:
        text = rng.choice(CAN_YOU) + text[0].lower() + text[1:] + rng.choice(("?", ""))
    elif rng.random() < 0.13:
        text = rng.choice(BEFORE) + text
    text = text.format(**slots)
    if rng.random() < 0.1:
        text += rng.choice(AFTER)
    return text


def _weather(words: Words) -> Request:
    rng, city = words.rng, words.city()
    request = Request("get_weather", _ask(rng, "weather", c=city), {"city": city})
    degrees, sky = (
        str(rng.randint(-15, 42)),
        rng.choice("sunny cloudy rainy windy foggy clear snowy overcast stormy mild".split()),
    )
    if rng.random() < 0.3:
        sky = rng.choice(("light rain", "heavy rain", "partly cloudy", "clear sky", "light snow", "scattered clouds"))
    if rng.random() < 0.25:
        request.result = rng.choice(
            ("{s}, {n} degrees", "{n} C, {s}", "It is {n} degrees and {s}", "{n} degrees, {s}")
        ).format(s=sky, n=degrees)
    else:
        result: dict[str, object] = {"city": city} if rng.random() < 0.6 else {}
        result[rng.choice(("temperature", "temp", "temp_c", "temperature_c", "degrees"))] = int(degrees)
        if rng.random() < 0.25:
            result["unit"] = rng.choice(("C", "celsius"))
        result[rng.choice(("condition", "conditions", "sky", "description", "weather", "summary"))] = sky
        if rng.random() < 0.3:
            result["humidity"] = rng.randint(10, 99)
        if rng.random() < 0.2:
            result = dict(rng.sample(list(result.items()), len(result)))
        request.result = json.dumps(result)
    request.answer = f"In {city} it is {degrees} degrees and {sky}."
    request.quotes = [degrees, sky]
    return request


def added(title: str, day: str, time: str) -> str:
    return f"Done: {title} is in your calendar on {day} at {time}."


def set_to(device: str, state: str) -> str:
    return f"Done: the {device} is set to {state}."


def _event(words: Words) -> Request:
    rng, title, day, time = words.rng, words.title(), words.day(), words.time()
    request = Request(
        "add_event", _ask(rng, "event", t=title, d=day, h=time), {"title": title, "day": day, "time": time}
    )
    number = rng.randint(1, 999)
    request.result = rng.choice(('{"status": "ok"}', '{"ok": true}', "ok", "Event added", json.dumps({"id": number, "status": "created"}),
                                 json.dumps({"created": True, "id": number}), "done", '{"result": "success"}'))  # fmt: skip
    request.answer = added(title, day, time)
    request.quotes = [title, day, time]
    return request


def _headline(words: Words) -> str:
    rng = words.rng
    pattern = rng.choice(("{n} wins prize for {t}", "{c} opens new museum of {t}", "{t}: what experts in {c} expect", "{n} on {t}",
                          "New record in {t}", "{c} plans for {t}", "Why {t} matters in {c}", "{n} visits {c}", "{t} grows again"))  # fmt: skip
    return pattern.format(n=words.full_name(), c=words.city(), t=words.pick_topic())


def _news(words: Words) -> Request:
    rng, topic = words.rng, words.topic()
    request = Request("search_news", _ask(rng, "news", t=topic), {"topic": topic})
    headlines = [_headline(words) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    draw = rng.random()
    if draw < 0.3:
        request.result = json.dumps({rng.choice(("headlines", "news", "results")): headlines})
    elif draw < 0.65:
        request.result = json.dumps(
            {rng.choice(("articles", "results", "items")): [{"title": line} for line in headlines]}
        )
    elif draw < 0.8:
        request.result = json.dumps(headlines)
    else:
        request.result = "\n".join(headlines)
    request.answer = f"News about {topic}: " + "; ".join(headlines) + "."
    request.quotes = headlines
    return request


def _quote(words: Words) -> Request:
    rng, symbol = words.rng, words.symbol()
    request = Request("get_quote", _ask(rng, "quote", s=symbol), {"symbol": symbol})
    price, currency = (
        f"{rng.randint(1, 990)}.{rng.randint(1, 9)}{rng.randint(1, 9)}",
        rng.choice(("USD", "EUR", "GBP", "CHF", "JPY")),
    )
    if rng.random() < 0.2:
        request.result = rng.choice(("{p} {c}", "{s}: {p} {c}", "{s} {p} {c}")).format(s=symbol, p=price, c=currency)
    else:
        result: dict[str, object] = {"symbol": symbol} if rng.random() < 0.6 else {}
        result[rng.choice(("price", "last", "quote", "value"))] = float(price)
        result["currency"] = currency
        if rng.random() < 0.25:
            result["change"] = round(rng.uniform(-9, 9), 1)
        request.result = json.dumps(result)
    request.answer = f"{symbol} is at {price} {currency}."
    request.quotes = [price, currency]
    return request


def _device(words: Words) -> Request:
    rng, draw = words.rng, words.rng.random()
    if draw < 0.55:
        device, state = words.device(SWITCHED), rng.choice(("on", "off"))
        text = _ask(rng, "switch", d=device, x=state)
    elif draw < 0.75:
        device = words.device(DIALLED)
        state = f"{rng.randint(1, 99)}" + rng.choice(("", "", "%", " degrees"))
        text = _ask(rng, "dial", d=device, x=state)
    else:
        opening = rng.random() < 0.6
        device = words.device(OPENED if opening else LOCKED)
        verb, state = rng.choice(
            (("open", "open"), ("close", "closed")) if opening else (("lock", "locked"), ("unlock", "unlocked"))
        )
        text = _ask(rng, "verb", v=verb, d=device, x=state)
        if rng.random() < 0.7:
            text = text[0].upper() + text[1:]
    request = Request("set_device", text, {"device": device, "state": state})
    request.result = rng.choice(
        (
            '{"ok": true}',
            '{"status": "ok"}',
            "ok",
            "done",
            '{"success": true}',
            json.dumps({"device": device, "state": state}),
        )
    )
    request.answer = set_to(device, state)
    request.quotes = [device, state]
    return request


def _wiki(words: Words) -> Request:
    rng, query = words.rng, words.topic()
    request = Request("search_wiki", _ask(rng, "wiki", q=query), {"query": query})
    about = query[0].upper() + query[1:]
    fact = rng.choice(("{q} was first described by {n} in {y}", "{q} is a {a} idea from {c}", "{q} became known in {c} around {y}",
                       "{n} of {c} wrote about {q} in {y}", "{q} is studied in {c} since {y}", "{q} is linked to {t}"))  # fmt: skip
    fact = fact.format(
        q=about,
        n=words.full_name(),
        c=words.city(),
        y=rng.randint(1200, 2024),
        a=words.fresh(False),
        t=words.pick_topic(),
    )
    draw = rng.random()
    if draw < 0.4:
        request.result = json.dumps({rng.choice(("summary", "extract", "text", "abstract")): fact})
    elif draw < 0.7:
        request.result = json.dumps({"title": about, rng.choice(("summary", "extract", "text")): fact})
    else:
        request.result = fact
    request.answer = fact + "."
    request.quotes = [fact]
    return request


MAKERS = {
    "get_weather": _weather,
    "add_event": _event,
    "search_news": _news,
    "get_quote": _quote,
    "set_device": _device,
    "search_wiki": _wiki,
}
INTENT_OF = {
    "get_weather": "weather",
    "add_event": "calendar",
    "search_news": "news",
    "get_quote": "finance",
    "set_device": "home",
    "search_wiki": "knowledge",
}
DESCRIPTIONS = {name: _lines(text) for name, text in {
    "get_weather": "Get the current weather for a city|Get the weather in a city|Current weather of a city|Look up the weather|Returns the weather forecast for a given city|Get current temperature and conditions for a location|Weather",
    "add_event": "Add an event to the calendar|Create a calendar event|Adds an appointment|Put an event in the user's calendar|Schedule an event|New calendar entry",
    "search_news": "Search the news|Find news articles about a topic|Search recent news on a topic|Get news headlines|Returns the latest headlines about a topic",
    "get_quote": "Get the price of a stock|Get a stock quote|Current share price|Look up the price of a stock symbol|Returns the latest quote for a ticker",
    "set_device": "Control a device at home|Switch a device on or off|Set the state of a smart home device|Change a device|Control smart home devices",
    "search_wiki": "Search Wikipedia|Look something up in the encyclopedia|Search the wiki for a query|Find an encyclopedia article|General knowledge search",
}.items()}  # fmt: skip
PARAMETERS = {
    "city": ("The city", "City name", "Name of the city", "The city, e.g. Paris", "The city to look up"), "title": ("Title of the event", "Title", "What the event is called"),
    "day": ("The day", "Day of the event", "Date or weekday"), "time": ("The time", "Start time", "Time of day"),
    "topic": ("The topic", "Topic to search for", "What the news should be about"), "symbol": ("Ticker symbol", "The stock symbol", "The symbol, e.g. AAPL"),
    "device": ("The device", "Name of the device", "Which device"), "state": ("The new state", "State to set", "on, off or a value"),
    "query": ("The search query", "What to look up", "Query"),
}  # fmt: skip
KEYS = {
    "get_weather": ["city"],
    "add_event": ["title", "day", "time"],
    "search_news": ["topic"],
    "get_quote": ["symbol"],
    "set_device": ["device", "state"],
    "search_wiki": ["query"],
}


def schema(rng: random.Random, name: str) -> dict:
    """One tool as OpenAI clients send it, with the variations seen in the wild."""
    described = rng.random() < 0.6
    properties: dict[str, dict] = {}
    for key in KEYS[name]:
        properties[key] = {"type": "string"}
        if described:
            properties[key]["description"] = rng.choice(PARAMETERS[key])
    if name == "get_weather" and rng.random() < 0.08:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    if name == "set_device" and rng.random() < 0.05:
        properties["state"]["enum"] = ["on", "off"]
    parameters: dict[str, object] = {"type": "object", "properties": properties}
    if rng.random() < 0.93:
        parameters["required"] = list(KEYS[name])
    if rng.random() < 0.07:
        parameters["additionalProperties"] = False
    function: dict[str, object] = {"name": name}
    if rng.random() < 0.9:
        function["description"] = rng.choice(DESCRIPTIONS[name]) + rng.choice(("", "", "."))
    function["parameters"] = parameters
    if rng.random() < 0.04:
        function["strict"] = True
    return {"type": "function", "function": function}


def toolset(rng: random.Random, *include: str, exclude: str | None = None) -> list[dict]:
    """Any subset of the tools in any order; small ones are the most common."""
    names = [name for name in MAKERS if name not in (*include, exclude)]
    size = max(rng.choices(range(1, 7), (38, 26, 16, 8, 5, 7))[0], len(include))
    chosen = rng.sample(names, min(len(names), size - len(include))) + list(include)
    rng.shuffle(chosen)
    return [schema(rng, name) for name in chosen]


def request(words: Words, tool: str | None = None) -> Request:
    return MAKERS[tool or words.rng.choice(list(MAKERS))](words)
