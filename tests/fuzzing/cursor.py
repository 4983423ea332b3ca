"""Target ``cursor``: what livefeed writes it reads again, and any other text is refused by name, however long."""

from __future__ import annotations

import string
from random import Random

from livefeed.cursors import NONE_YET, Position, entry, join, parse_cursor, topic_mark
from livefeed.exceptions import InvalidCursor

from . import words
from .expecting import expect
from .words import Case

TOPICS = ["plain", "build:42", "testapp.article", "a", "x" * 200]
_MARK = set(string.ascii_letters + string.digits + "_-")
_SEQ = string.digits + string.ascii_lowercase
_MOST = 36**12


def make(random: Random) -> Case:
    stands = [
        [random.choice(TOPICS), random.choice(["", "AAAAAA", "-_09az"]), words.number(random)]
        for _ in range(random.choice([0, 1, 1, 1, 2, 5]))
    ]
    parts = [_part(random) for _ in range(random.choice([1, 1, 1, 2, 3, 5]))]
    if random.random() < 0.02:
        parts = parts[:1] * random.choice([170, 186, 187, 819, 820, 2_000])
    return {"stands": stands, "text": ".".join(parts)}


def _part(random: Random) -> str:
    mark = random.choice([topic_mark(random.choice(TOPICS)), "AAAA", words.name(random, 6)])
    rest = random.choice(["", "AAAAAA0", "AAAAAA" + "z" * random.randrange(15), words.name(random)])
    return mark + rest + (words.text(random) if random.random() < 0.2 else "")


def check(case: Case) -> None:
    _round_trip(case["stands"])
    _any_text(case["text"])


def _round_trip(stands: list[list[object]]) -> None:
    positions: list[tuple[str, Position]] = []
    for topic, epoch, seq in stands:
        if isinstance(topic, str) and _is_epoch(epoch) and isinstance(seq, int) and 0 <= seq < _MOST:
            surrogates = any("\ud800" <= character <= "\udfff" for character in topic)
            positions += [] if surrogates else [(topic, Position(str(epoch), seq) if epoch else NONE_YET)]
    if not positions:
        return
    text = join(entry(topic, position) for topic, position in positions)
    expect(set(text) <= _MARK | {"."}, f"a header could bend {text!r}")
    if len(text) > 4096:
        return
    cursor = parse_cursor(text)
    for topic, _ in positions:
        wanted = [position for other, position in positions if topic_mark(other) == topic_mark(topic)]
        expect(cursor.positions(topic) == wanted, f"{text!r} came back as {cursor.positions(topic)} on {topic!r}")


def _is_epoch(epoch: object) -> bool:
    return isinstance(epoch, str) and (epoch == "" or (len(epoch) == 6 and set(epoch) <= _MARK))


def _any_text(text: str) -> None:
    wanted = understood(text)
    try:
        cursor = parse_cursor(text)
    except InvalidCursor as error:
        expect(wanted is None, f"{text!r} was refused")
        expect(len(str(error)) < 700, f"{len(str(error))} characters of error")
        expect("\n" not in str(error) and "\r" not in str(error), f"{str(error)!r} would forge a line of a log")
        return
    expect(wanted is not None, f"{text[:200]!r} was taken for a cursor")
    for topic in TOPICS:
        found = cursor.positions(topic)
        expect(found == (wanted or {}).get(topic_mark(topic), []), f"{text!r} says {found} of {topic!r}")
        expect(all(0 <= position.seq < 2**63 for position in found), f"no database can hold {found}")


def understood(text: str) -> dict[str, list[Position]] | None:
    """Return what a text says as a cursor, by mark; None where it is none. Written without livefeed's pattern."""
    if len(text) > 4096:
        return None
    found: dict[str, list[Position]] = {}
    for part in text.split("."):
        mark, epoch, seq = part[:4], part[4:10], part[10:]
        usable = len(mark) == 4 and set(mark + epoch) <= _MARK and set(seq) <= set(_SEQ)
        if not usable or (epoch and not (len(epoch) == 6 and 1 <= len(seq) <= 12)):
            return None
        number = 0
        for digit in seq:
            number = number * 36 + _SEQ.index(digit)
        found.setdefault(mark, []).append(Position(epoch, number) if epoch else NONE_YET)
    return found
