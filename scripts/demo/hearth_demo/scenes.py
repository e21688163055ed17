"""The narrator's lessons: short fantasy scenes, grown from a grammar, that carry on what the user does."""

from __future__ import annotations

import random
import re

from . import chat, skills
from .words import Words

PLACES = """ruined tower|moonlit forest|flooded crypt|mountain pass|smoky tavern|crystal cave|abandoned mill|salt marsh|
sunken temple|windswept moor|hidden library|dwarven forge|old lighthouse|bone orchard|market square|river crossing|
throne hall|witch's hut|dragon's lair|stone bridge|silent monastery|goblin tunnel|frozen lake|desert shrine""".replace(
    "\n", ""
).split("|")
WEATHER = """Rain drums on the stones|A cold wind rises|Mist creeps along the ground|Thunder rolls far away|Snow begins to fall|
The moon breaks through the clouds|Dust hangs in the air|The light is fading|Stars glitter above|A warm breeze carries the scent of pine|
Fog swallows the path|The sun sinks behind the hills""".replace("\n", "").split("|")
THINGS = """silver key|rusty sword|old map|glass lantern|iron crown|wooden flute|black mirror|sealed letter|copper ring|healing potion|
leather book|bronze horn|raven feather|amber stone|broken shield|silk rope|golden coin|jade amulet|crooked staff|clay jar""".replace(
    "\n", ""
).split("|")
BEINGS = """old wizard|young thief|blind oracle|grey wolf|stone giant|river spirit|weary knight|goblin trader|hooded stranger|
forest witch|dwarven smith|ghost of a king|talking raven|small dragon|elven archer|lost child|tavern keeper|bone collector""".replace(
    "\n", ""
).split("|")
SOUNDS = "a bell rings|a door creaks|footsteps echo|someone whispers|a wolf howls|water drips|a horn sounds|wings beat|a chain rattles|something growls".split(
    "|"
)
LIGHTS = "torchlight|moonlight|firelight|starlight|the glow of a lantern|pale green light|the last light of day".split(
    "|"
)
FEELINGS = "afraid|curious|calm|angry|hopeful|tired|sad|brave|amused|uneasy|proud|wary".split("|")
# How a character talks: manner of speaking, openings, closings.
VOICES: dict[str, tuple[str, list[str], list[str]]] = {
    "gruff": ("growls", ["Hah.", "Bah.", "Listen well.", "Mind your feet."], ["Now move.", "Don't make me say it twice.", "That is all you get."]),
    "gentle": ("says softly", ["Dear friend,", "Be at peace.", "Come closer.", "Do not fear."], ["I will stay with you.", "Rest a little.", "You have done well."]),
    "cunning": ("whispers", ["A trade, perhaps?", "How interesting.", "Between us,", "Clever, very clever."], ["For a price, of course.", "Trust me, or do not.", "Nothing is free here."]),
    "noble": ("declares", ["By my oath,", "Hear me.", "Well met, traveler.", "On my honor,"], ["So it shall be.", "My blade is yours.", "Let us go together."]),
    "merry": ("laughs", ["Ha, splendid!", "What a day!", "Sing with me!", "Oh, I like you!"], ["And then we shall feast!", "What could go wrong?", "Adventure calls!"]),
    "mournful": ("sighs", ["Alas,", "So long ago,", "Once I had hope.", "Ah, the old days."], ["All things fade.", "I remember too much.", "None of them came back."]),
}  # fmt: skip
# What the user may do, and what comes of it.
ACTIONS: list[tuple[str, list[str]]] = [
    ("I open the door|I push the door open|I try the door|I unlock the door", ["The door groans and swings wide. Behind it lies a {p2}, lit by {l}.", "The door gives way, and {l} spills over the floor. A {b} looks up.", "The hinges scream. Somewhere inside, {s}."]),
    ("I look around|I look closer|I search the room|I examine the {p}|What do I see?", ["You see a {t} on the ground, half hidden in the shadows.", "Under the dust you find a {t}. It is warm to the touch.", "In {l} you make out a {b}, standing very still.", "There are marks on the wall: three circles and the sign of a {t}."]),
    ("I take the {t}|I pick up the {t}|I grab the {t}|I reach for the {t}", ["The {t} is heavier than it looks. As you lift it, {s}.", "Your fingers close around the {t}. It hums quietly, as if it knew you.", "You take the {t}, and for a moment you feel {f}."]),
    ("I draw my sword|I attack the {b}|I strike at the {b}|I fight the {b}", ["Steel flashes in {l}. The {b} stumbles back and raises both hands.", "Your blow lands, but the {b} only smiles. Then {s}.", "The {b} is faster than you thought. You feel a sting on your arm."]),
    ("I hide behind a wall|I hide|I crouch in the shadows|I wait in silence", ["You hold your breath. A {b} passes within arm's reach and does not see you.", "From your hiding place you hear it: {s}.", "Long minutes pass. Only {l} moves over the stones."]),
    ("I talk to the {b}|I greet the {b}|I ask the {b} for help|I bow to the {b}", ["The {b} studies you for a while and looks {f}.", "The {b} nods and points at a {t}.", "The {b} tells you of a {p2} where no one dares to go."]),
    ("I run|I run away|I flee into the dark|I run as fast as I can", ["Your boots hammer on the stones. Behind you {s}.", "You run until the {p2} rises before you, and only then you stop.", "Branches whip your face. When you look back, no one follows."]),
    ("I give the {t} to the {b}|I offer the {t}|I show the {t} to the {b}", ["The {b} takes the {t} with trembling hands and looks {f}.", "The {b} turns the {t} over and laughs. It is the one that was lost.", "At the sight of the {t} the {b} kneels."]),
    ("I light a fire|I light my torch|I raise my lantern", ["The flame leaps up and the shadows retreat. A {t} glitters in the corner.", "In the new light you see that the {p} is not empty: a {b} sits by the wall.", "The fire crackles. Slowly you feel less {f}."]),
    ("I walk on|I follow the path|I go deeper into the {p}|I keep walking|I go north", ["The way leads down, past roots and old bones, to a {p2}.", "After an hour you reach a {p2}. {w}.", "The path forks. On the left {s}; on the right there is only {l}."]),
    ("I drink from the well|I drink the potion|I eat the bread", ["It tastes of iron and honey. You feel {f}.", "Warmth spreads through your chest, and the world grows sharp and clear.", "For a moment you hear voices. They speak of a {t}."]),
    ("I sing a song|I play the flute|I tell a story", ["The notes drift through the {p}, and a {b} steps out to listen.", "When you end, no one speaks. Then {s}.", "Even the wind seems to listen. The {b} wipes away a tear."]),
    ("I sleep|I rest for a while|I sit down", ["You dream of a {p2} and of a {t} that calls your name.", "You wake with a start: {s}. The {t} is gone.", "The night is quiet. In the morning you feel {f}."]),
    ("I cast a spell|I say the magic word|I raise my hand and speak the old words", ["Sparks dance over your fingers, and the {t} begins to glow.", "The air grows thick. Then {s}, and the {b} turns to stone.", "Nothing happens at first. Then the whole {p} starts to tremble."]),
]  # fmt: skip
OPENERS = """Tell me a story about {n}|Begin a scene in a {p}|Describe the {p}|Start the adventure|Where am I?|I enter the {p}|I meet {n} in a {p}|
Set the scene|Let us begin|Hello|Hello {n}|Start a story in the {p} with {n}|I wake up in a {p}|Continue the story""".replace(
    "\n", ""
).split("|")
SETTINGS = """The {p} lies before you in {l}. {w}.|You stand in a {p}. {w}, and somewhere {s}.|{w} over the {p}. A {b} waits near the entrance.|
You wake in a {p}, with a {t} in your hand. {w}.|Few travelers ever come to this {p}. Tonight {s}, and {l} falls on a {t}.""".replace(
    "\n", ""
).split("|")
DEEDS = """{n} steps out of the shadows and looks {f}.|{n} puts a hand on the {t}.|{n} watches you with narrow eyes.|{n} leans on a staff and listens.|
{n} walks beside you without a word.|{n} points toward the {p2}.|{n} kneels and touches the ground.|{n} holds up a {t}.|{n} turns to the {b}.|{n} listens, for {s}.|{n} hides the {t} under a cloak.|
{n} draws a circle in the dust.|{n} looks back toward the {p}.|{n} takes a long breath and goes first.|{n} counts the stars and nods.|
{n} shivers, although {l} is warm.|{n} hums an old tune.|{n} feels {f} and says nothing.|{n} lays the {t} at your feet.""".replace(
    "\n", ""
).split("|")
SAYINGS = """we must find the {t} before dawn.|the {b} knows more than it tells.|no one leaves the {p2} unchanged.|I have seen this {t} before.|
beware of the {b}.|the way to the {p2} is open now.|you carry the {t}, so you must choose.|they say that a {b} sleeps under this {p}.|
keep the {t} close and your eyes open.|I heard it too: {s}.|whatever happens, do not wake the {b}.|
my mother told me of the {p2}.|the {t} was made for hands like yours.|I would give much to be as {f} as you.|there is a second door behind the {b}.|
once this {p} was full of songs.|if we part here, meet me at the {p2}.|the {b} owes me a favor.|by {l} everything looks like a {t}.|
do you smell that? A {b} was here.|it is not the {t} that they want.|the old road ends at the {p2}.""".replace(
    "\n", ""
).split("|")
ENDINGS = """What do you do?|What will you do?|Where do you go?|The choice is yours.|And you?|Do you follow?|{n} waits for your answer.|{w}.""".replace(
    "\n", ""
).split("|")
SYSTEMS = """You are {n}, a {v} {b} in a fantasy story.|You are {n}. You speak in a {v} voice.|You are the narrator of a fantasy story about {n}, a {v} {b}.|
Narrate short fantasy scenes. The companion is {n}, who is {v}.|You play {n}, the {v} {b}. Continue the story.|
Write the next scene. Character: {n} ({v}). Place: {p}.|You are a storyteller. The hero meets {n}, a {v} {b}, in a {p}.""".replace(
    "\n", ""
).split("|")


# What is said without a deed, and what the character says to it: by the manner of speaking where that matters.
GREETINGS = """Hello|Hi|hello|hi|hey|Hey|Hello!|Hi!|Hi there|Hello there|Good evening|Good morning|Good day|Greetings|greetings|Hello, {n}|
Hi {n}|Well met|hey there|Hello, how are you?|Nice to meet you|Howdy|Is anyone there?""".replace("\n", "").split("|")
WELCOMES = {
    "gruff": "Hah. A visitor.|You took your time.|So you found me.|Who goes there? Speak up.",
    "gentle": "Welcome, dear friend.|Peace be with you, traveler.|Come in and warm your hands.|How good to see a kind face.",
    "cunning": "A new face, how interesting.|Welcome, welcome. Mind the price.|I was told that you would come.|Well, well, a guest.",
    "noble": "Well met, traveler.|Hail, and welcome.|You honor this {p}.|By my oath, a friend at last.",
    "merry": "Ha, splendid, a guest!|Welcome, welcome, sit down!|What a day to meet a stranger!|Hello to you, and to your boots!",
    "mournful": "Alas, you came after all.|So there is still someone left.|Welcome, if anyone can be welcome here.|Ah, a voice at last.",
}  # fmt: skip
TALK: list[tuple[str, str]] = [
    ("Who are you?|who are you|What are you?|What is your name?|Tell me about yourself|Introduce yourself|Who is speaking?", "They call me {n}, and this {p} is all the home I have.|I am {n}. Some say a {b}, but they never asked.|My name is {n}, and I tell what happens when you choose a road."),
    ("What can you do?|what can you do|How does this work?|What should I do?|Help|help|What is this?", "Tell me what you do, and I tell you what comes of it.|I know every stone of this {p}. Say where you go, and I go with you.|You act, I tell the tale. Begin with the {t}, perhaps."),
    ("How are you?|how are you|How do you feel?|Are you well?|What's up?", "I feel {f} tonight, and the {b} is to blame.|As {f} as one can be in a {p}.|Well enough, as long as {l} lasts."),
    ("Thanks|thank you|Thank you!|Thanks!|I thank you|Many thanks", "Keep your thanks and keep the {t}.|Thank me when we are out of this {p}.|It was nothing. The {b} did the hard part."),
    ("Bye|Goodbye|goodbye|Farewell|See you|Good night|I must go", "Go, then, and may {l} guide you.|Farewell. The {p} will remember your steps.|Until we meet again at the {p2}."),
    ("Tell me a joke|Make me laugh|tell me a joke", "A {b} walks into a {p2}. The {p2} walks out.|Why did the {b} steal a {t}? Nobody was looking for a {b}.|I knew a {b} who feared the dark. Now the dark fears the {b}."),
]  # fmt: skip
LONG = """Tell me a long story|tell me a long story|Tell a long story about {n}|Write a long scene|Tell me everything|Go on, and do not stop|
Write a whole chapter|Tell me the whole story of {n}|A long story, please|Tell the story from beginning to end|Write a chapter about the {p}|
Continue, and take your time|Keep going|Tell me more, much more|Write ten paragraphs""".replace("\n", "").split("|")
PASSAGES = """Hours later|By and by|At dawn|At dusk|Before long|Then|Soon after|On the third day|When the night is darkest|In the end|
Far from there|A little later|After a long silence|Without warning|At last|Once more""".replace("\n", "").split("|")


class Scene:
    """The state that keeps a story consistent: the same companion, place and objects from turn to turn."""

    def __init__(self, words: Words) -> None:
        self.words, rng = words, words.rng
        self.voice = rng.choice(list(VOICES))
        self.slots = dict(
            n=words.fresh() if rng.random() < 0.6 else words.name(),
            v=self.voice,
            p=rng.choice(PLACES),
            b=rng.choice(BEINGS),
            t=rng.choice(THINGS),
        )
        self.user_name = words.name() if rng.random() < 0.25 else None
        self.told: set[str] = set()

    def fresh(self, patterns: list[str]) -> str:
        """A pattern that this story has not used yet, as long as there is one."""
        left = [pattern for pattern in patterns if pattern not in self.told] or patterns
        chosen = self.words.rng.choice(left)
        self.told.add(chosen)
        return chosen

    def fill(self, pattern: str) -> str:
        rng = self.words.rng
        fresh = dict(
            p2=rng.choice(PLACES),
            l=rng.choice(LIGHTS),
            s=rng.choice(SOUNDS),
            w=rng.choice(WEATHER),
            f=rng.choice(FEELINGS),
        )
        if rng.random() < 0.3:
            fresh |= {"t": rng.choice(THINGS)}
        text = pattern.format(**(self.slots | fresh))
        for vowel in "aeio":
            text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
        return text[0].upper() + text[1:]

    def speech(self) -> str:
        rng = self.words.rng
        manner, openings, closings = VOICES[self.voice]
        opening, saying = rng.choice(openings), self.fill(self.fresh(SAYINGS))
        if opening.endswith(","):
            saying = saying[0].lower() + saying[1:] if not saying.startswith("I ") else saying
        closing = " " + rng.choice(closings) if rng.random() < 0.5 else ""
        address = f" {self.user_name}," if self.user_name and rng.random() < 0.5 else ""
        if address:
            opening, saying = opening.rstrip(".,!?") + ",", address.strip() + " " + saying[0].lower() + saying[1:]
        return f'"{opening} {saying}{closing}" {self.slots["n"]} {manner}.'

    def reply(self, first: str) -> str:
        rng = self.words.rng
        parts = [self.fill(first)]
        parts += [self.fill(self.fresh(DEEDS))] if rng.random() < 0.6 else []
        parts += [self.speech()] if rng.random() < 0.85 else []
        parts += [self.fill(rng.choice(SETTINGS)).split(". ")[-1]] if rng.random() < 0.15 else []
        parts += [self.fill(rng.choice(ENDINGS))] if rng.random() < 0.55 else []
        return " ".join(parts)

    def said(self, line: str) -> str:
        """A line of the character outside of the action, and a way back into it."""
        rng = self.words.rng
        parts = [f'"{self.fill(line)}" {self.slots["n"]} {VOICES[self.voice][0]}.']
        parts += [self.fill(self.fresh(DEEDS))] if rng.random() < 0.5 else []
        parts += [self.fill(rng.choice(SETTINGS))] if rng.random() < 0.5 else []
        return " ".join([*parts, self.fill(rng.choice(ENDINGS))])

    def paragraph(self) -> str:
        """One step of a long story: a deed, what comes of it, and perhaps the companion's part. The place moves on."""
        rng = self.words.rng
        actions, outcomes = self.fresh_action()
        deed = rng.choice(actions).rstrip("?").replace("I ", "you ", 1).replace(" my ", " your ")
        outcome = self.fresh(outcomes)
        lead = self.fresh(PASSAGES) + " " if rng.random() < 0.5 else ""
        parts = [self.fill(lead + deed + "."), self.fill(outcome)]
        parts += [self.fill(self.fresh(DEEDS))] if rng.random() < 0.5 else []
        parts += [self.speech()] if rng.random() < 0.6 else []
        if rng.random() < 0.5:
            self.slots |= {"p": rng.choice(PLACES), "b": rng.choice(BEINGS), "t": rng.choice(THINGS)}
        return " ".join(parts)

    def fresh_action(self) -> tuple[list[str], list[str]]:
        left = [pair for pair in ACTIONS if not self.told.issuperset(pair[1])] or ACTIONS
        actions, outcomes = self.words.rng.choice(left)
        return [text for text in actions.split("|") if text.startswith("I ")], outcomes

    def story(self, paragraphs: int) -> str:
        first = [self.fill(self.words.rng.choice(SETTINGS))]
        return "\n\n".join([*first, *(self.paragraph() for _ in range(paragraphs))])


def conversation(words: Words) -> list[chat.Message]:
    """Mostly scenes that carry on what the user does; also greetings and questions, and long stories of many paragraphs."""
    draw = words.rng.random()
    return talk(words) if draw < 0.16 else long_story(words) if draw < 0.26 else play(words)


def _opened(words: Words, scene: Scene, share: float) -> list[chat.Message]:
    """The system message, in a part of the conversations."""
    if words.rng.random() >= share:
        scene.user_name = None
        return []
    text = scene.fill(words.rng.choice(SYSTEMS))
    if scene.user_name:
        text += f" The user is called {scene.user_name}."
    return [{"role": "system", "content": text}]


def _asked(words: Words, text: str) -> chat.Message:
    text += "." if words.rng.random() < 0.4 and text[-1] not in "?!" else ""
    return {"role": "user", "content": text}


def talk(words: Words) -> list[chat.Message]:
    rng, scene = words.rng, Scene(words)
    messages = _opened(words, scene, 0.55)
    for turn in range(rng.choice((1, 1, 2))):
        if turn == 0 and rng.random() < 0.6:
            said = rng.choice([text for text in GREETINGS if messages or "{n}" not in text])
            answer = rng.choice(WELCOMES[scene.voice].split("|"))
            answer += f" I am {scene.slots['n']}." if rng.random() < 0.4 else ""
        else:
            said, answer = (rng.choice(text.split("|")) for text in rng.choice(TALK))
        messages.append(_asked(words, said.format(**scene.slots)))
        messages.append({"role": "assistant", "content": scene.said(answer)})
    return messages


def long_story(words: Words) -> list[chat.Message]:
    rng, scene = words.rng, Scene(words)
    messages = _opened(words, scene, 0.6)
    text = rng.choice([text for text in LONG if messages or "{" not in text])
    messages.append(_asked(words, text.format(**scene.slots)))
    return [*messages, {"role": "assistant", "content": scene.story(rng.choice((4, 8, 12, 14, 16)))}]


def play(words: Words) -> list[chat.Message]:
    rng, scene = words.rng, Scene(words)
    messages = [{"role": "system", "content": scene.fill(rng.choice(SYSTEMS))}]
    if scene.user_name:
        messages[0]["content"] += f" The user is called {scene.user_name}."
    if rng.random() < 0.2:
        messages, scene.user_name = [], None
    for turn in range(rng.choice((1, 2, 2, 3, 4))):
        if turn == 0 and (rng.random() < 0.5 or not messages):
            said = rng.choice([text for text in OPENERS if messages or "{n}" in text])
            first = rng.choice(SETTINGS)
        else:
            actions, outcomes = rng.choice(ACTIONS)
            said, first = rng.choice(actions.split("|")), rng.choice(outcomes)
        said = said.format(**scene.slots)
        said += "." if rng.random() < 0.6 and said[-1] not in "?" else ""
        said = said if rng.random() < 0.9 else said.lower()
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": scene.reply(first)}]
    return messages


def character(system: str) -> str | None:
    """The name that a system message gives to the character."""
    found = re.search(r"(?:You are|You play|companion is|Character:|about|meets) ([A-Z][a-z]+)", system)
    return found[1] if found else None


def speakers(text: str) -> list[str]:
    """Names to which a scene gives speech."""
    manners = "|".join(manner for manner, _, _ in VOICES.values())
    return re.findall(rf'" ([^ "]+) (?:{manners})\.', text)


def document(rng: random.Random, progress: float = 1.0) -> list[chat.Segment]:
    """One training conversation. Early on a part is pure copying: a scene alone teaches too little to keep made-up names."""
    words = Words(rng, "train")
    if progress < 0.5 and rng.random() < 0.4:
        return chat.segments(skills.repeat(words).messages)
    return chat.segments(conversation(words))
