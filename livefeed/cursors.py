"""Cursors: the positions of one reader as text, for the ``id:`` of an event and for ``Last-Event-ID``.

A cursor is a dot-joined list of entries, one per topic: four characters that stand for the topic's name, six for the
epoch, and the ``seq`` in base 36. ``Zk3f`` alone is "no event yet". So one topic takes about 13 bytes and the fifty
that are allowed stay under 1 KiB. The text is ASCII without spaces: browsers disagree about anything else in a
header. Entries are found by the topic, so cursors may be joined, and entries of other topics do no harm.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from .exceptions import InvalidCursor

EPOCH_LENGTH = 6
#: Characters of the longest cursor that is looked at: 50 entries of 24 characters, with room.
MAX_LENGTH = 4096
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ENTRY = re.compile(r"(?P<topic>[A-Za-z0-9_-]{4})(?:(?P<epoch>[A-Za-z0-9_-]{6})(?P<seq>[0-9a-z]{1,12}))?")


class Position(NamedTuple):
    """Where a reader stands on one topic: behind ``seq`` of ``epoch``. No epoch: before the topic's first event."""

    epoch: str
    seq: int


NONE_YET = Position("", 0)


class Cursor:
    """What a client sent back: for each topic the positions it claims (normally one)."""

    def __init__(self, entries: dict[str, list[Position]]) -> None:
        self._entries = entries

    def positions(self, topic: str) -> list[Position]:
        """Return the positions claimed on a topic; empty where the cursor says nothing about it."""
        return self._entries.get(topic_mark(topic), [])


def parse_cursor(text: str) -> Cursor:
    """Read a cursor. Raises :exc:`InvalidCursor` for text that is not one."""
    entries: dict[str, list[Position]] = {}
    for part in text.split(".") if len(text) <= MAX_LENGTH else [""]:
        match = _ENTRY.fullmatch(part)
        if match is None:
            raise InvalidCursor(f"{text[:60]!r} is not a cursor. Send back the id of the last event, unchanged.")
        position = Position(match["epoch"], int(match["seq"], 36)) if match["epoch"] else NONE_YET
        entries.setdefault(match["topic"], []).append(position)
    return Cursor(entries)


@lru_cache(maxsize=4096)  # of several topics a reader moves on one at a time, and thousands of readers are at the same
def entry(topic: str, position: Position) -> str:
    """Return the entry of one topic: for a connection with one topic, this is its cursor."""
    return topic_mark(topic) + (position.epoch + _base36(position.seq) if position.epoch else "")


def join(entries: Iterable[str]) -> str:
    """Return the cursor of several topics."""
    return ".".join(entries)


def new_epoch() -> str:
    """Draw an epoch: 36 random bits."""
    return secrets.token_urlsafe(EPOCH_LENGTH)[:EPOCH_LENGTH]


@lru_cache(maxsize=65_536)
def topic_mark(topic: str) -> str:
    """Return the four characters (24 bits) that stand for a topic. A clash costs a reset, no event."""
    digest = hashlib.blake2b(topic.encode(), digest_size=3).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
