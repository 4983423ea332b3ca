"""One event, and a stretch of them: what the writing half hands to the reading half.

Everything is refused here, at the door, and trusted inside: the type, the JSON, its size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, NamedTuple

from django.core.serializers.json import DjangoJSONEncoder

from .conf import settings
from .exceptions import InvalidData, InvalidType
from .topics import shortened, validate_topic

MAX_TYPE_LENGTH = 64
#: Levels of lists and objects in one event's data. Python decodes what is only as deep as its call stack leaves room:
#: what one process could write, another one, deeper in its calls, could not read, and a page would fail for everybody.
MAX_DEPTH = 100
_TYPE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
# An EventSource fires "open" and "error" by itself, and htmx's "close" ends its stream: nobody could tell them apart.
_RESERVED = frozenset({"open", "error", "close"})
_OURS = "livefeed-"
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_ENCODER = DjangoJSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_BRACKET = re.compile(r"[\[\]{}]")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a topic.

    ``seq`` counts 1, 2, 3 … per topic without holes; it is None before the numbering, and always for fleeting events.
    ``json`` is the data as it was encoded, once, where it was published; ``created_at`` is that moment, in UTC.
    ``size`` is the bytes of the data, as JSON in UTF-8.
    """

    topic: str
    type: str
    json: str
    id: str = field(default_factory=lambda: token_hex(16))
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seq: int | None = None
    size: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", size_of(self.json))

    @property
    def data(self) -> Any:
        """Return the data, decoded from JSON anew at each call."""
        return json.loads(self.json)

    def as_json(self) -> dict[str, Any]:
        """Return the event as the JSON page shows it."""
        return {
            "topic": self.topic,
            "seq": self.seq,
            "type": self.type,
            "data": self.data,
            "created_at": self.created_at.isoformat(),
            "id": self.id,
        }


class Stretch(NamedTuple):
    """Consecutive events of one topic, numbered in one epoch. Fleeting events stand in a stretch without an epoch."""

    topic: str
    epoch: str
    events: Sequence[Event]


def new_event(topic: str, data: Any, type: str) -> Event:
    """Make an event out of what a user handed in.

    Raises :exc:`InvalidTopic`, :exc:`InvalidType`, or :exc:`InvalidData` for data that is too large or no JSON.
    """
    return Event(topic=validate_topic(topic), type=validate_type(type), json=encode(data))


def validate_type(type: object) -> str:
    """Return the event type if a client can receive it, else raise :exc:`InvalidType`."""
    if not (isinstance(type, str) and _TYPE.fullmatch(type)):
        raise InvalidType(
            f'{type!r} is not an event type. Use 1 to {MAX_TYPE_LENGTH} letters, digits and "_.:-", e.g. "progress".'
        )
    if type in _RESERVED or type.startswith(_OURS):
        raise InvalidType(
            f'The event type {type!r} is reserved: open, error, close and "livefeed-…" are. Choose another.'
        )
    return type


def encode(data: Any) -> str:
    """Return the data as compact JSON, by Django's encoder; raise :exc:`InvalidData` where that is not possible."""
    try:
        text = _ENCODER.encode(data)
        size = size_of(text)
    except (TypeError, ValueError, RecursionError) as error:  # a lone surrogate is a UnicodeEncodeError, a ValueError
        raise InvalidData(
            f"{shortened(data)} can't be written as JSON: {error}. Hand in what Django's JSON encoder knows: dict, "
            "list, str, finite numbers, bool, None, dates, Decimal, UUID."
        ) from error
    if size > settings.MAX_EVENT_BYTES:
        raise InvalidData(
            f"Event data of {size} bytes is larger than LIVEFEED_MAX_EVENT_BYTES ({settings.MAX_EVENT_BYTES}). "
            "Send a key that the page can fetch the rest by, or raise the setting."
        )
    if text.count("[") + text.count("{") > MAX_DEPTH and (depth := _depth(text)) > MAX_DEPTH:
        raise InvalidData(
            f"{shortened(data)} is nested {depth} levels deep, and {MAX_DEPTH} are allowed. "
            "Send it flatter, or as text."
        )
    return text


def _depth(text: str) -> int:
    """Return the levels of lists and objects in a JSON text."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def size_of(text: str) -> int:
    """Return the bytes of a text in UTF-8; Python knows without looking whether it is all ASCII."""
    return len(text) if text.isascii() else len(text.encode())


def pack(stretch: Stretch) -> bytes:
    """Return a stretch as bytes for another process: no channel layer can refuse or bend those."""
    rows = [(event.seq, event.id, event.type, event.json, event.created_at.isoformat()) for event in stretch.events]
    return json.dumps([stretch.topic, stretch.epoch, rows]).encode()


def unpack(body: bytes) -> Stretch:
    """Return what was packed. Raises ValueError or TypeError for what was not packed by us."""
    topic, epoch, rows = json.loads(body)
    return Stretch(topic, epoch, tuple(_unpack(topic, *row) for row in rows))


def _unpack(topic: str, seq: int | None, id: str, type: str, json: str, created_at: str) -> Event:
    return Event(topic, type, json, id, datetime.fromisoformat(created_at), seq)
