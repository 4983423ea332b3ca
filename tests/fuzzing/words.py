"""What cases are made of: numbers and text, rather hostile. Every function draws from a `random.Random`."""

from __future__ import annotations

import string
from random import Random
from typing import Any

#: One case of a target: plain JSON, so that a case that was found can be read and kept.
Case = dict[str, Any]

NAMES = string.ascii_letters + string.digits + "._:-"
#: Characters that somebody, somewhere, takes for the end of a line, of a text, or of a number.
CHARACTERS = [
    *("\n", "\r", "\r\n", "\n\n", "\0", "\t", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x7f", "\x85", "\xa0", "\xad"),
    *("\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff", "\ud800", "\udfff", "\udc80", "\ud83d\ude00", "\U0010ffff"),
    *(" ", "  ", ":", "::", ": ", "~", ".", "-", "_", ",", ";", "=", "&", "%", '"', "'", "\\", "<", ">", "/", "?", "#"),
    *("é", "ß", "İ", "ı", "ſ", "K", "ª", "²", "٣", "߁", "𝟏", "Ⅷ", "e\u0301", "\u200d", "\u202e", "😀", "\u212b"),
]
WORDS = [
    *("data", "id", "event", "retry", "topic", "data:", "id: ", "event: livefeed-reset", "data: x", "retry: 0"),
    *("message", "open", "error", "close", "livefeed-", "livefeed-open", "LIVEFEED-open", "progress", "created"),
    *("true", "null", "NaN", "Infinity", "-0", "0", "1", "9" * 20, "1e999", "0x10", "١", "__proto__", "constructor"),
    *("{}", "[]", "</script>", "<img src=x onerror=1>", "{{ 7 }}", "%s%n", "' OR 1=1 --", "../../etc/passwd"),
]


def number(random: Random) -> int:
    """Return a whole number, often one at an edge."""
    edges = [0, 1, 2, 3, 7, 8, 9, 10, 50, 51, 63, 64, 199, 200, 201, 255, 256, 1000, 1001, 4096, 65_535, 65_536]
    return random.choice([random.choice(edges), random.randint(0, 300), random.getrandbits(random.choice([8, 31, 63]))])


def cuts(random: Random) -> list[int]:
    """Return positions to cut bytes at."""
    return [random.randint(0, 200) for _ in range(random.choice([0, 0, 1, 2, 5, 20]))]


def name(random: Random, most: int = 12) -> str:
    """Return what may be the name of a topic, a type, or anything else."""
    return "".join(random.choice(NAMES) for _ in range(random.randint(1, most)))


def almost(random: Random) -> str:
    """Return a name with something at its end or its beginning that may make it none."""
    put = random.choice(CHARACTERS)
    return random.choice([name(random) + put, put + name(random), name(random) + "\n", "x" * random.randint(60, 70)])


def text(random: Random) -> str:
    """Return any text: every Unicode character is possible, hostile ones are likely, lone surrogates included."""
    if random.random() < 0.01:
        return random.choice(["x", "\n", "é", "\ud800", "a\r"]) * random.choice([200, 200, 5_000])
    return "".join(_piece(random) for _ in range(random.choice([0, 1, 1, 2, 3, 5, 12])))


def _piece(random: Random) -> str:
    kind = random.randrange(6)
    if kind == 0:
        return chr(random.randrange(0x110000))
    if kind == 1:
        return chr(random.randrange(0x100))
    if kind == 2:
        return name(random)
    return random.choice(WORDS if kind == 3 else CHARACTERS)


def latin(random: Random) -> str:
    """Return text that stands for raw bytes, one character each."""
    return text(random).encode("utf-8", "surrogatepass").decode("latin-1")


def value(random: Random, depth: int = 3) -> Any:
    """Return anything that JSON can hold, and a little more: NaN, infinities."""
    kind = random.randrange(9 if depth else 7)
    if kind == 7:
        return [value(random, depth - 1) for _ in range(random.choice([0, 1, 2, 5]))]
    if kind == 8:
        return {text(random): value(random, depth - 1) for _ in range(random.choice([0, 1, 2, 5]))}
    if kind < 3:
        return text(random)
    scalars = [None, True, False, 0.1, -0.0, 1e308, float("nan"), float("inf"), float("-inf"), number(random), -1]
    return random.choice(scalars)
