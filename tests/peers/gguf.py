"""Adds numbers to the header of a GGUF file: a model becomes one that can fill in text."""

from __future__ import annotations

import struct
from pathlib import Path

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
UINT32, STRING, ARRAY = 4, 8, 9
ALIGNMENT = 32


def aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, form: str) -> int:
        (number,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(form)
        return number

    def string(self) -> bytes:
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            element, count = self.number("I"), self.number("Q")
            for _ in range(count):
                self.skip_value(element)
        else:
            self.at += SIZES[kind]


def strings(data: bytes, key: str) -> list[bytes]:
    """The strings of an array in the header."""
    reader = Reader(data)
    reader.at = 16
    for _ in range(reader.number("Q")):
        name, kind = reader.string(), reader.number("I")
        if name == key.encode():
            element, count = reader.number("I"), reader.number("Q")
            assert (kind, element) == (ARRAY, STRING)
            return [reader.string() for _ in range(count)]
        reader.skip_value(kind)
    raise KeyError(key)


def with_numbers(source: Path, target: Path, numbers: dict[str, int]) -> None:
    """A copy with these numbers in its header."""
    data = source.read_bytes()
    reader = Reader(data)
    reader.at = 8
    tensors, count = reader.number("Q"), reader.number("Q")
    begin = reader.at
    for _ in range(count):
        assert reader.string() != b"general.alignment"
        reader.skip_value(reader.number("I"))
    end = reader.at
    for _ in range(tensors):
        reader.string()
        dimensions = reader.number("I")
        reader.at += 8 * dimensions + 12
    more = b"".join(
        struct.pack("<Q", len(key)) + key.encode() + struct.pack("<II", UINT32, number) for key, number in numbers.items()
    )
    header = data[:16] + struct.pack("<Q", count + len(numbers)) + data[begin:end] + more + data[end : reader.at]
    target.write_bytes(header.ljust(aligned(len(header)), b"\0") + data[aligned(reader.at) :])
