"""Target ``encode``: what is published is refused by name, or comes out of the reference parser as it went in."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import uuid
from dataclasses import replace
from random import Random
from typing import Any

from livefeed import sse
from livefeed.conf import settings
from livefeed.cursors import Position, entry, parse_cursor
from livefeed.events import MAX_DEPTH, Event, Stretch, new_event, pack, unpack
from livefeed.exceptions import InvalidData, InvalidTopic, InvalidType
from livefeed.personal import encode
from livefeed.registry import registry
from livefeed.streams import own_block
from livefeed.tail import Subscription, Tail
from livefeed.window import Budget, Frame, render

from . import words
from .expecting import expect
from .reference import ReferenceParser, parsed
from .words import Case

#: "plain" belongs to a feed whose events have no name, and whose text is not JSON: where line ends go out as they are.
TOPICS = ["plain", "plain", "plain:1", "build:42", "testapp.article", "a", "x" * 200]
EPOCH = "epoch1"
#: Letters of two bytes each, just below and above LIVEFEED_MAX_EVENT_BYTES with the quotation marks.
EDGES = [131_070, 131_071, 131_072]
RESERVED = {"open", "error", "close"}
#: What is no JSON, by the name that stands for it in a case, as {"$": name}.
OBJECTS: dict[str, Any] = {
    "bytes": b"x",
    "set": {1},
    "object": object(),
    "bytes key": {b"k": 1},
    "int key": {1: 2},
    "nan key": {math.nan: 1},
    "date": datetime.date(2026, 1, 1),
    "decimal": decimal.Decimal("NaN"),
    "uuid": uuid.UUID(int=7),
    "time with zone": datetime.time(1, tzinfo=datetime.UTC),
    "loop": (loop := []),
}
loop.append(loop)
REFUSED = {"bytes", "set", "object", "bytes key", "nan key", "time with zone", "loop"}
ENCODED = {"int key": {"1": 2}, "date": "2026-01-01", "decimal": "NaN", "uuid": str(uuid.UUID(int=7))}


def make(random: Random) -> Case:
    events = [
        {"topic": _topic(random), "type": _type(random), "data": _data(random)}
        for _ in range(random.choice([1, 1, 1, 2, 5]))
    ]
    return {"events": events, "several": random.random() < 0.5, "cuts": words.cuts(random)}


def _topic(random: Random) -> str:
    return random.choice([*TOPICS, "plain", words.name(random), words.almost(random), words.text(random)])


def _type(random: Random) -> Any:
    return random.choice(
        ["message", "created", words.name(random), words.almost(random), words.text(random), words.value(random)]
    )


def _data(random: Random) -> Any:
    """Return data of all kinds: text most often, and now and then what a case has to spell out."""
    kind = random.random()
    if kind < 0.03:
        return {"$": random.choice(list(OBJECTS))}
    if kind < 0.06:
        return {"$deep": random.choice([98, 99, 100, 101, words.number(random)])}
    if kind < 0.07:
        return {"$huge": random.choice([*EDGES, 2_000])}
    return words.text(random) if kind < 0.4 else words.value(random)


def check(case: Case) -> None:
    published = []
    for index, said in enumerate(case["events"]):
        if isinstance(said, dict) and (event := _published(said, index)):
            published.append(event)
    if published:
        _packed(published)
        _streamed(published, case)


def _published(said: dict[str, Any], index: int) -> Event | None:
    """Publish, and return the event; None where it was refused, as it had to be."""
    topic, type, data = said.get("topic"), said.get("type"), _meant(said.get("data"))
    try:
        event = new_event(topic, data, type)  # type: ignore[arg-type]
    except InvalidTopic:
        expect(not _is_topic(topic), f"the topic {topic!r} was refused")
    except InvalidType:
        expect(not _is_type(type), f"the type {type!r} was refused")
    except InvalidData as error:
        expect(not _is_data(said.get("data")), f"the data {said.get('data')!r:.100} was refused: {error}")
        expect(len(str(error)) < 1000, f"{len(str(error))} characters of error")
    else:
        expect(_is_topic(topic), f"the topic {topic!r} was accepted")
        expect(_is_type(type), f"the type {type!r} was accepted")
        expect(_is_data(said.get("data")), f"the data {said.get('data')!r:.100} was accepted")
        moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=index)
        return replace(event, created_at=moment)
    return None


def _meant(data: Any) -> Any:
    """Return the data that a case stands for."""
    if isinstance(data, dict) and len(data) == 1:
        (kind, said), *_ = data.items()
        if kind == "$" and isinstance(said, str) and said in OBJECTS:
            return OBJECTS[said]
        if kind == "$deep" and isinstance(said, int):
            return _deep(_bounded(said) % 2_000)
        if kind == "$huge" and isinstance(said, int):
            return "é" * _bounded(said)
    return data


def _bounded(number: int) -> int:
    """Return a number that takes no time, or one at the edge of what may be published."""
    return number if number in EDGES else abs(number) % 2_000


def _deep(levels: int) -> Any:
    data: Any = []
    for level in range(levels):
        data = [data] if level % 2 else {"k": data}
    return data


def _is_topic(topic: object) -> bool:
    return isinstance(topic, str) and 1 <= len(topic) <= 200 and set(topic) <= set(words.NAMES) and topic[0] != ":"


def _is_type(type: object) -> bool:
    fits = isinstance(type, str) and 1 <= len(type) <= 64 and set(type) <= set(words.NAMES)
    return fits and type not in RESERVED and not str(type).startswith("livefeed-")


def _is_data(said: Any) -> bool:
    data = _meant(said)
    if data is not said:
        kind, value = next(iter(said.items()))
        if kind == "$":
            return value not in REFUSED
        if kind == "$deep":
            return _bounded(value) % 2_000 < MAX_DEPTH
    try:
        size = len(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    except ValueError:
        return False
    return size <= settings.MAX_EVENT_BYTES


def _packed(events: list[Event]) -> None:
    for event in events:
        stretch = Stretch(event.topic, EPOCH, (replace(event, seq=1),))
        expect(unpack(pack(stretch)) == stretch, f"another process gets something else than {event}")


def _streamed(events: list[Event], case: Case) -> None:
    tails: dict[str, Tail] = {}
    placed: list[tuple[Event, Position]] = []
    budget = Budget(64 * 1024 * 1024)
    for index, event in enumerate(events):
        tail = tails.setdefault(event.topic, Tail(event.topic, Position(EPOCH, 0), budget))
        tail.add(EPOCH, Frame(tail.head + 1, index, encode(event), event.id))
        placed.append((event, Position(EPOCH, tail.head)))
    if case["several"] is True and len(tails) > 1:
        _read(_of_several(tails), placed, case, several=True)
    else:
        for topic, tail in tails.items():
            mine = [(event, position) for event, position in placed if event.topic == topic]
            _read(_of_one(tail), mine, case, several=False)


def _of_one(tail: Tail) -> list[bytes]:
    chunks = []
    position = Position(EPOCH, 0)
    while position.seq < tail.head:
        chunk, position = render(tail.topic, tail.epoch, tail.after(position.seq))
        chunks.append(chunk)
    return chunks


def _of_several(tails: dict[str, Tail]) -> list[bytes]:
    subscription = Subscription(list(tails.values()), [Position(EPOCH, 0) for _ in tails])
    chunks = []
    while chunk := subscription.take():
        chunks.append(chunk)
    return chunks


def _read(chunks: list[bytes], placed: list[tuple[Event, Position]], case: Case, *, several: bool) -> None:
    """Check that a stream of these chunks, with what livefeed puts around and between them, says just this."""
    goodbye = own_block("closing", {"reason": placed[0][0].json[:1000]})
    stream = sse.retry(2000) + sse.KEEP_ALIVE.join(chunks) + goodbye
    parser = parsed(stream, case["cuts"])
    *events, last = parser.events
    expect(len(events) == len(placed), f"{len(placed)} were published and {len(events)} came: {stream!r:.300}")
    for found, (event, position) in zip(events, placed, strict=True):
        type, data = _as_sent(event)
        expect(found.type == type, f"the type {type!r} came as {found.type!r}")
        expect(found.data == data, f"the data {data!r:.100} came as {found.data!r:.100}")
        expect(found.topic == (event.topic if several else ""), f"the topic came as {found.topic!r}")
        expect(parse_cursor(found.id).positions(event.topic) == [position], f"the id {found.id!r} is not {position}")
        expect(several or found.id == entry(event.topic, position), f"the id came as {found.id!r}")
    expect(last.type == "livefeed-closing" and json.loads(last.data)["reason"], f"the goodbye came as {last}")
    _nothing_else(parser, comments=len(chunks) - 1)


def _nothing_else(parser: ReferenceParser, *, comments: int) -> None:
    expect(set(parser.fields) <= {"id", "event", "data", "retry", "topic"}, f"fields {set(parser.fields)}")
    expect(parser.comments == comments, f"{parser.comments} comments instead of {comments}")
    expect(parser.retry == 2000, f"retry {parser.retry}")
    expect(not parser.unfinished, "the stream ends within a block")


def _as_sent(event: Event) -> tuple[str, str]:
    """Return type and data as the documentation says a client gets them: docs/wire.md."""
    feed = registry.owner(event.topic)
    if feed is None or feed.event_names:
        return event.type, event.json
    data = json.loads(event.json)
    return "message", _normal(data) if isinstance(data, str) else event.json


def _normal(text: str) -> str:
    """Return a text with its line ends as a client gets them back: each is one LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
