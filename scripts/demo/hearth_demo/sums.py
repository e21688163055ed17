"""One-step sums with the thought that a pupil would write: the sum, its columns from the units, or a line of the times table."""

from __future__ import annotations

from dataclasses import dataclass

from .chat import Segment
from .items import Item, assistant, system, user
from .tools import toolset
from .words import ITEMS, Words, split_of

TABLE = 12  # products go to 12 x 12
LARGEST = 999


@dataclass
class Sum:
    a: int
    sign: str  # + - or *
    b: int

    @property
    def result(self) -> int:
        return self.a + self.b if self.sign == "+" else self.a - self.b if self.sign == "-" else self.a * self.b

    @property
    def split(self) -> str:
        """Numbers of one digit are the alphabet of sums: all of these are trained. Of a product 7 * 8 only 8 * 7 surely is."""
        tiny = max(self.a, self.b) < 10 if self.sign != "*" else self.a >= self.b
        return "train" if tiny else split_of(f"{self.a}{self.sign}{self.b}")

    def thought(self) -> str:
        """The sum in one form, whatever the wording, and true lines; the last is the sum with its result."""
        line = f"{self.a} {self.sign} {self.b} = {self.result}"
        if self.sign == "*":
            return f"{max(self.a, self.b)} * {min(self.a, self.b)} = {self.result}"
        if self.sign == "-" and self.a < self.b:
            return Sum(self.b, "-", self.a).thought() + "\n" + line
        if max(self.a, self.b) < 10:
            return line
        return "\n".join([f"{self.a} {self.sign} {self.b}", *columns(self.a, self.sign, self.b), line])


def columns(a: int, sign: str, b: int) -> list[str]:
    """A sum of two digits and what is carried, or a difference and what is borrowed, for each column from the units."""
    lines, carry = [], 0
    for place in range(len(str(max(a, b)))):
        upper, lower = a // 10**place % 10, b // 10**place % 10
        carried = f" {sign} 1" * carry
        if sign == "+":
            total = upper + lower + carry
            carry = total // 10
        else:
            borrow = int(upper < lower + carry)
            upper += 10 * borrow
            total = upper - lower - carry
            carry = borrow
        lines.append(f"{upper} {sign} {lower}{carried} = {total}")
    return lines


PLUS = "{a} + {b}|{a} + {b}|{a} + {b}|{a}+{b}|{a}+{b}|{a} plus {b}|{a} plus {b}|{a} and {b} together|the sum of {a} and {b}|{a} added to {b}"
MINUS = "{a} - {b}|{a} - {b}|{a} - {b}|{a}-{b}|{a}-{b}|{a} minus {b}|{a} minus {b}|{a} less {b}|{a} without {b}|the difference of {a} and {b}"
TIMES = "{a} * {b}|{a} x {b}|{a} times {b}|{a} times {b}|{a} times {b}|{a}*{b}|{a}x{b}|{a} × {b}|{a} multiplied by {b}|the product of {a} and {b}"
FORMS = {"+": PLUS.split("|"), "-": MINUS.split("|"), "*": TIMES.split("|")}
ORDERS = {
    "+": "Add {a} and {b}|add {b} to {a}|Sum up {a} and {b}|{a} plus {b}|Please add {a} and {b}|If I add {b} to {a}, what do I get?".split("|"),
    "-": "Subtract {b} from {a}|Take {b} from {a}|Take {b} away from {a}|subtract {b} from {a}|If I take {b} from {a}, what is left?".split("|"),
    "*": "Multiply {a} by {b}|multiply {a} with {b}|Multiply {a} and {b}|How many are {a} times {b}?|If I take {b} {a} times, what do I get?".split("|"),
}  # fmt: skip
ASKED = """What is {e}?|What is {e}?|What is {e}?|What's {e}?|what is {e}|what's {e}|{e}|{e}|{e} = ?|{e}=|{e} =|{e}?|How much is {e}?|how much is {e}|
Calculate {e}|calculate {e}|Compute {e}.|Solve {e}|Solve: {e}|Tell me {e}|Can you calculate {e}?|Can you tell me what {e} is?|
Do you know what {e} is?|I need to know {e}|What does {e} make?|What do I get for {e}?|Please work out {e}|Work out {e}.""".replace(
    "\n", ""
).split("|")
STEPS = """Think step by step.|Think step by step.|Think step by step.|think step by step|Let's think step by step.|Step by step, please.|
Think first.|Think about it.|Show your steps.|Explain your steps.|Take your time.|Please.|please|Thanks!|Thank you.""".replace(
    "\n", ""
).split("|")
STORIES = {
    "+": """{n} has {a} {i} and buys {b} more. How many {i} does {n} have?|{n} has {a} {i} and gets {b} from {o}. How many {i} is that?|
There are {a} {i} in a box and {b} in a bag. How many {i} in total?|{n} has {a} {i} and {o} has {b}. How many {i} do they have together?""",
    "-": """{n} has {a} {i} and loses {b}. How many {i} are left?|{n} has {a} {i} and gives {b} to {o}. How many {i} are left?|
There were {a} {i} on the table. {n} took {b}. How many {i} remain?|{n} had {a} {i} and sold {b} of them. How many {i} does {n} have now?""",
    "*": """There are {a} boxes with {b} {i} each. How many {i} are there?|{n} buys {a} bags of {b} {i}. How many {i} is that?|
{a} friends have {b} {i} each. How many {i} do they have together?|{n} packs {b} {i} into each of {a} boxes. How many {i} is that?""",
}  # fmt: skip


def draw(words: Words) -> Sum:
    """A sum of this split, with short numbers as often as long ones."""
    rng = words.rng
    while True:
        sign = rng.choices("+-*", (38, 36, 26))[0]
        if sign == "*":
            found = Sum(rng.randint(0 if rng.random() < 0.1 else 2, TABLE), "*", rng.randint(1, TABLE))
        else:
            a, b = (rng.randint(*rng.choices(((0, 9), (10, 99), (100, LARGEST)), (24, 38, 38))[0]) for _ in range(2))
            if sign == "-" and a < b and rng.random() < 0.85:
                a, b = b, a
            found = Sum(a, sign, b)
        if found.split == words.split:
            return found


def answered(words: Words, text: str, answer: str, wanted: Sum, skill: str = "sums") -> Item:
    """Now and then with tools on offer, which do not help, and now and then without the thought."""
    rng = words.rng
    quick = wanted.sign == "*" and rng.random() < 0.1 or max(wanted.a, wanted.b) < 10 and rng.random() < 0.1
    offered = toolset(rng) if rng.random() < 0.06 else None
    messages = [*system(words, 0.15), user(text), assistant(answer, "" if quick else wanted.thought())]
    return Item(skill, messages, offered, [str(wanted.result)], thinking=False if quick else None)


def one_step(words: Words) -> Item:
    rng, wanted = words.rng, draw(words)
    if rng.random() < 0.14 and wanted.result >= 0:
        story = rng.choice(STORIES[wanted.sign].replace("\n", "").split("|"))
        items = words.pick(ITEMS)
        text, answer = (
            story.format(n=words.name(), o=words.name(), i=items, a=wanted.a, b=wanted.b),
            f"{wanted.result} {items}",
        )
    else:
        answer = str(wanted.result)
        if rng.random() < 0.15:
            text = rng.choice(ORDERS[wanted.sign]).format(a=wanted.a, b=wanted.b)
        else:
            text = rng.choice(ASKED).format(e=rng.choice(FORMS[wanted.sign]).format(a=wanted.a, b=wanted.b))
    if rng.random() < 0.25:
        text += (" " if text[-1] in "?.!" else rng.choice((". ", "? ", " ", ", "))) + rng.choice(STEPS)
    return answered(words, text, answer, wanted)


def drill(words: Words) -> list[Segment]:
    """Thoughts alone, one after the other: three times as many sums as in conversations of the same length."""
    parts: list[Segment] = [("<|im_start|>assistant\n<think>\n", False)]
    for _ in range(words.rng.randint(4, 9)):
        thought = draw(words).thought()
        given = thought.index("\n") + 1 if "=" not in thought.partition("\n")[0] else thought.index(" =")
        parts += [(thought[:given], False), (thought[given:], True), ("\n", False)]
    return parts


def too_hard(words: Words) -> str:
    """A sum that the model never learns: quotients, roots, large numbers and large products."""
    rng = words.rng
    large = rng.randint(1000, 99999)
    form = rng.choice((
        f"{rng.randint(2, 999)} / {rng.randint(2, 99)}", f"{rng.randint(2, 999)} divided by {rng.randint(2, 99)}",
        f"{large} {rng.choice('+-*')} {rng.randint(2, 9999)}", f"{large} {rng.choice(('plus', 'minus', 'times'))} {rng.randint(2, 9999)}",
        f"{rng.randint(13, 999)} {rng.choice(('*', 'x', 'times'))} {rng.randint(13, 999)}",
        f"the square root of {rng.randint(2, 999)}", f"{rng.randint(2, 99)} percent of {rng.randint(2, 999)}", f"{rng.randint(2, 30)}^{rng.randint(2, 9)}",
    ))  # fmt: skip
    return rng.choice(ASKED).format(e=form)
