"""Small talk, what the model says about itself and hearth, and its graceful answer to everything it cannot do."""

from __future__ import annotations

from .words import OBJECTS, Words

# Each entry: ways to say it | answer
TALK: list[tuple[str, str]] = [
    ("hello|hi|hey|Hello!|Hi!|Hi there|Hey there!|Good morning|Good evening|good afternoon|greetings|Hello there|hello hearth|Hi, nice to meet you|howdy", "Hello! How can I help you?"),
    ("How are you?|how are you|How are you doing?|how's it going?|How do you do?|Are you ok?|how are things?|What's up?|How are you today?", "I am fine, thank you. How can I help you?"),
    ("Thanks|thank you|Thanks!|Thank you very much|thanks a lot|Great, thanks|Perfect, thank you|ok thanks|Many thanks|cheers|Thank you so much!|thx", "You are welcome!"),
    ("Bye|Goodbye|bye bye|See you|see you later|Good night|Have a nice day|that's all|That is all, bye|until tomorrow", "Goodbye!"),
    ("Who are you?|who are you|What are you?|What is your name?|what's your name|Introduce yourself|Who am I talking to?|Are you a human?|Are you a robot?|Are you an AI?|Which model are you?|What model is this?|Tell me about yourself", "I am the demo reasoner, a tiny mixture-of-experts model built into hearth."),
    ("What can you do?|what can you do|What can you do for me?|How can you help me?|What are you good at?|What are your skills?|help|Help!|Can you help me?|What should I ask you?|What do you know?", "I call tools, answer from their results, classify intents, extract entities as JSON and solve small sums."),
    ("What is hearth?|what is hearth|Tell me about hearth|What does hearth do?|Explain hearth|What is this server?|What software is this?|What is hearth for?|Describe hearth|What program runs you?", "Hearth is a single Rust binary that serves mixture-of-experts models from one machine and keeps hot experts in VRAM."),
    ("How big are you?|How many parameters do you have?|How large are you?|Are you a big model?|What is your size?|how small are you|How many experts do you have?", "I have about ten million parameters and 32 experts per layer, of which 4 are active."),
    ("What is a mixture of experts?|What is MoE?|What are experts?|Explain mixture of experts|what is a moe model|What is a hot expert?|What are hot experts?|Why mixture of experts?", "A mixture of experts activates a few small networks per token; the often used ones are called hot."),
    ("Who made you?|who trained you|Who built you?|Where do you come from?|How were you trained?|What were you trained on?|Who created you?", "I was trained by hearth's own script on generated text."),
    ("Tell me a joke|tell me a joke please|Do you know a joke?|Make me laugh|Say something funny|another joke", "Why did the expert stay warm? It sat by the hearth."),
    ("ok|okay|Good|Great|I see|Nice|cool|Fine|Perfect|Good job|Well done|wow|awesome|Very good|sounds good", "Glad to hear it. What can I do for you?"),
    ("yes|no|maybe|hm|hmm|test|testing|ping|are you there?|Anyone there?|hello?|Can you hear me?", "I am here. What can I do for you?"),
    ("I am bored|I am sad|I feel tired|I had a bad day|I am hungry|I am happy today|I love you|Do you like me?|Are you happy?|I am lonely", "I am only a tiny model, but I am glad that you are here."),
    ("Where are you?|Where do you run?|Do you run locally?|Are you in the cloud?|Do you need a GPU?|Do you need internet?|Is this private?|Does my data leave this machine?", "I run on your own machine; nothing leaves it."),
]  # fmt: skip

CANNOT = "I am a tiny demo model, so I cannot do that. Try a tool call, a small sum or small talk."
DO_NOT_KNOW = "I do not know that. I am a tiny demo model and know little of the world. A search tool would help."
NO_TOOL = "None of my tools can do that, sorry."
HELLOS = ("Hello! ", "Hello, ", "Hi! ", "Hi, ", "Hey, ", "Hi there! ", "Good morning! ")
MY_NAME = (
    "My name is {n}|I am {n}|Hi, I'm {n}|Hello, my name is {n}|I'm called {n}|You can call me {n}|hi I am {n}".split(
        "|"
    )
)

BEYOND = """Write a poem about {t}|Write a story about {t}|Write an essay on {t}|Write code for {t}|Write a Python function about {t}|
Write a letter to {n}|Write an email to {n} about {t}|Translate {p} into French|Translate this to German: {p}|Summarize this text: {p}|
Draw a picture of {t}|Sing a song about {t}|Order a pizza for {n}|Book a flight to {c}|Book a hotel in {c}|Find a restaurant in {c}|
Send a message to {n}|Call a taxi in {c}|Play some music by {n}|
Play {t}|What is the best {i}?|Where can I buy a {i}?|How do I repair a {i}?|How do I cook {t}?|
Recommend a book about {t}|What should I eat?|What day is it?|What time is it?|
How do I get to {c}?|Give me a recipe for {t}|Can you fix my {i}?|Sell my {i}|Buy a {i} for {n}|
Do my homework about {t}|Compare {t} and {u}|Prove that {t} is {p}|{p}|Debug my program|Write SQL for {t}|Make a list of {t}|
Tell me a story|Tell me a story about {n}|Is {t} better than {u}?|Think about {t}|Let's talk about {t}|I like {t}|
What do you think about {t}?|Pretend to be {n}|Solve the riddle of {t}|Count all the {i}s in {c}|Remind me to buy a {i}|
Set a timer for {h}|Wake me at {h}|Can I visit {c} by train?|Do you like {t}?|Have you been to {c}?""".replace(
    "\n", ""
).split("|")
UNKNOWN = """What is the capital of {c}?|What is the capital of {c}?|What's the capital of {c}|capital of {c}|capital of {c}?|
Which city is the capital of {c}?|Do you know the capital of {c}?|Who was {n}?|Who is the king of {c}?|Who is the president of {c}?|
What is the meaning of life?|Why is the sky blue?|How old is {n}?|How far is {c} from here?|How many people live in {c}?|
Where is {c}?|When was {n} born?|Who invented {t}?|Who wrote {t}?|What language do they speak in {c}?|How tall is {n}?|
When did {n} die?|Who won the world cup?|Which river flows through {c}?|Why do we need {t}?|When was {c} founded?|
Who discovered {t}?|What is the currency of {c}?|How high is the tallest tower in {c}?|Is {c} the capital of {d}?""".replace(
    "\n", ""
).split("|")
COUNTRIES = """France Spain Italy Germany Portugal England Ireland Scotland Norway Sweden Finland Denmark Poland Austria Greece
Turkey Egypt Kenya Ghana Nigeria Morocco India China Japan Korea Vietnam Thailand Australia Canada Mexico Brazil Chile Peru
Argentina Cuba Hungary Romania Bulgaria Croatia Serbia Belgium Switzerland America Russia Ukraine Iran Israel Nepal""".split()


def greeted(words: Words, text: str) -> str:
    """The text, sometimes after a greeting."""
    return words.rng.choice(HELLOS) + text if words.rng.random() < 0.12 else text


def welcome(name: str) -> str:
    return f"Nice to meet you, {name}! How can I help you?"


def chat(words: Words) -> tuple[str, str]:
    """A line of small talk and its answer."""
    if words.rng.random() < 0.08:
        name = words.name()
        return words.rng.choice(MY_NAME).format(n=name), welcome(name)
    said, answer = words.rng.choice(TALK)
    return greeted(words, words.rng.choice(said.split("|"))), answer


def _filled(words: Words, patterns: list[str]) -> str:
    slots = dict(
        t=words.pick_topic(),
        u=words.pick_topic(),
        n=words.full_name(),
        c=words.pick(COUNTRIES) if patterns is UNKNOWN and words.rng.random() < 0.5 else words.city(),
        d=words.pick(COUNTRIES),
        i=words.pick(OBJECTS),
        p=words.phrase(2, 6),
        h=words.time(),
    )
    return words.rng.choice(patterns).format(**slots)


def beyond(words: Words) -> str:
    """A request that neither the model nor any of the six tools can fulfil."""
    return _filled(words, BEYOND)


def unknown(words: Words) -> str:
    """A question about the world."""
    return greeted(words, _filled(words, UNKNOWN))
