"""A byte-level BPE whose words keep their pieces with and without a leading space, so that copying is copying of tokens.

llama.cpp reads it as tokenizer model `gpt2` with pre-tokenizer `qwen2`. Merges inside words come first; joining a space
to a word comes last and only for common words that are never slot values. ` Paris` is thus the space and then exactly
the tokens of `"Paris`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import regex

PIECES = regex.compile(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
]
# Frequent runs of a JSON schema, one token each: tool lists shrink to a third.
SCHEMA = [
    '{"type": "function", "function": {"name": "',
    '", "description": "',
    '", "parameters": {"type": "object", "properties": {"',
    '": {"type": "string"',
    '}, "required": ["',
    '{"name": "',
    '", "arguments": {"',
]


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return table


BYTES = _byte_alphabet()
SPACE = BYTES[32]


def _spell(text: str) -> tuple[str, ...]:
    return tuple(BYTES[byte] for byte in text.encode())


def _join(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


class Tokenizer:
    def __init__(self, merges: list[tuple[str, str]], extra: list[str]) -> None:
        self.merges = merges
        self.extra = extra
        self.tokens = [BYTES[byte] for byte in range(256)] + [a + b for a, b in merges] + CONTROL + extra
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.end = self.ids["<|im_end|>"]
        self.pad = self.ids["<|endoftext|>"]
        special = sorted(CONTROL + extra, key=len, reverse=True)
        self._special = regex.compile("(" + "|".join(regex.escape(token) for token in special) + ")")
        self._bytes = {symbol: byte for byte, symbol in BYTES.items()}
        self._word = lru_cache(maxsize=200_000)(self._encode_word)

    def _encode_word(self, word: str) -> list[int]:
        symbols = _spell(word)
        while len(symbols) > 1:
            best = min(zip(symbols, symbols[1:]), key=lambda pair: self.ranks.get(pair, 1 << 30))
            if best not in self.ranks:
                break
            symbols = _join(symbols, best)
        return [self.ids[symbol] for symbol in symbols]

    def encode(self, text: str) -> list[int]:
        out: list[int] = []
        for i, part in enumerate(self._special.split(text)):
            if i % 2:
                out.append(self.ids[part])
            else:
                for word in PIECES.findall(part):
                    out += self._word(word)
        return out

    def decode(self, ids: Iterable[int]) -> str:
        data = bytearray()
        for i in ids:
            token = self.tokens[i]
            data += token.encode() if i >= 256 + len(self.merges) else bytes(self._bytes[symbol] for symbol in token)
        return data.decode(errors="replace")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"merges": self.merges, "extra": self.extra}))

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        data = json.loads(path.read_text())
        return cls([tuple(pair) for pair in data["merges"]], data["extra"])


def train(texts: Iterable[str], merges: int, spaced: int, slot_words: set[str], extra: list[str]) -> Tokenizer:
    """`merges` joins inside words by frequency, then `spaced` joins of the space with common words."""
    counts: Counter[str] = Counter()
    splitter = Tokenizer([], extra)._special
    for text in texts:
        for part in splitter.split(text)[::2]:
            counts.update(PIECES.findall(part))
    bare: Counter[tuple[str, ...]] = Counter()
    after_space: Counter[str] = Counter()
    for piece, count in counts.items():
        if len(piece) > 1 and not piece[0].isalpha() and piece[1].isalpha() and piece[0] != "'":
            if piece[0] == " ":
                after_space[piece[1:]] += count
            piece = piece[1:]
        bare[_spell(piece)] += count
    learnt: list[tuple[str, str]] = []
    words = dict(bare)
    pairs: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[tuple[str, ...]]] = {}

    def note(word: tuple[str, ...], count: int) -> None:
        for pair in zip(word, word[1:]):
            pairs[pair] += count
            where.setdefault(pair, set()).add(word)

    for word, count in words.items():
        note(word, count)
    while len(learnt) < merges:
        best, count = max(pairs.items(), key=lambda entry: (entry[1], entry[0]))
        if count < 2:
            break
        learnt.append(best)
        for word in where.pop(best):
            if word not in words:
                continue
            count = words.pop(word)
            for pair in zip(word, word[1:]):
                pairs[pair] -= count
            merged = _join(word, best)
            words[merged] = words.get(merged, 0) + count
            note(merged, count)
        del pairs[best]
    whole = {a + b for a, b in learnt}
    common = [
        word
        for word, _ in after_space.most_common()
        if word not in slot_words and (len(word) == 1 or "".join(_spell(word)) in whole)
    ]
    learnt += [(SPACE, "".join(_spell(word))) for word in common[:spaced] if len(word) > 1 or word in "aI"]
    return Tokenizer(learnt, extra)
