"""What was committed, what the history holds, what each reader saw, and where these are not the same. No I/O but SQL.

What was committed is known without livefeed: from the table that the writers fill in their own transactions.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import psycopg

from tests.e2e.fault_reader import Reader

#: Differences of one kind that are told.
TOLD = 5


class Note(NamedTuple):
    """One committed event as its writer noted it, with the time of the note (seconds, just before the commit)."""

    topic: str
    key: str
    at: float
    writer: int
    entry: int | None


class Stored(NamedTuple):
    """One event of the history; `number` is None where nobody numbered it yet."""

    topic: str
    number: int | None
    key: str


def committed(url: str) -> list[Note]:
    """Return all notes, in the order in which they were made."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT topic, key, at, writer, entry FROM fault_truth ORDER BY id").fetchall()
    return [Note(*row) for row in rows]


def stored(url: str, topics: Sequence[str]) -> list[Stored]:
    """Return the events of some topics, in the order of their numbers; those without one come last."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT topic, seq, data FROM livefeed_event WHERE topic = ANY(%s) ORDER BY seq NULLS LAST", [list(topics)]
        ).fetchall()
    return [Stored(topic, seq, _key(json.loads(data))) for topic, seq, data in rows]


def unnumbered(url: str) -> int:
    """Return how many committed events have no number."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM livefeed_event WHERE seq IS NULL").fetchone()
    return int(row[0]) if row else 0


def leases(url: str) -> int:
    """Return how many connections the site takes for open."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM livefeed_lease WHERE expires_at > now()").fetchone()
    return int(row[0]) if row else 0


def _key(data: Mapping[str, str]) -> str:
    return data.get("key") or data["title"]


def by_topic(events: Sequence[Stored]) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = defaultdict(list)
    for event in events:
        found[event.topic].append(event)
    return found


def differences(notes: Sequence[Note], events: Sequence[Stored], readers: Sequence[Reader]) -> list[str]:
    """Return every promise that was broken, in words; an empty list is the proof that none was."""
    history = by_topic(events)
    noted: dict[str, list[Note]] = defaultdict(list)
    for note in notes:
        noted[note.topic].append(note)
    broken: list[str] = []
    for topic in sorted({*history, *noted}):
        broken += _in_history(topic, noted[topic], history[topic])
    keys = {topic: [event.key for event in stored] for topic, stored in history.items()}
    for reader in readers:
        broken += _at_reader(reader, keys)
    return broken


def _in_history(topic: str, notes: Sequence[Note], events: Sequence[Stored]) -> Iterator[str]:
    """Compare a topic's history with what was committed."""
    numbers = [event.number for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{topic}: the numbers of the history are not 1 to {len(numbers)}: {_first_other(numbers)}"
    keys = [event.key for event in events]
    yield from _compared(f"{topic}: the history", keys, [note.key for note in notes])
    place = {key: index for index, key in enumerate(keys)}
    for kind, group in (("writer", _groups(notes, "writer")), ("entry", _groups(notes, "entry"))):
        for name, members in group.items():
            places = [place[note.key] for note in members if note.key in place]
            if places != sorted(places):
                yield f"{topic}: the events of {kind} {name} are not in the order of their commits"


def _groups(notes: Sequence[Note], attribute: str) -> dict[int, list[Note]]:
    found: dict[int, list[Note]] = defaultdict(list)
    for note in notes:
        name = getattr(note, attribute)
        if name is not None:
            found[name].append(note)
    return found


def _first_other(numbers: Sequence[int | None]) -> str:
    return next(f"at {place} is {number}" for place, number in enumerate(numbers, 1) if place != number)


def _at_reader(reader: Reader, keys: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Compare what a reader saw with the history: the same, in the same order. Resets and errors are told as well."""
    for topic, seen in reader.seen.items():
        there = keys.get(topic, [])
        if seen.keys != there:
            yield from _compared(f"{reader.name} on {topic}", seen.keys, there)
            if Counter(seen.keys) == Counter(there):
                yield f"{reader.name} on {topic}: all events, in another order than the history"
    if reader.resets:
        yield f"{reader.name}: {len(reader.resets)} resets that no fault explains: {reader.resets[:TOLD]}"
    if reader.trouble:
        yield f"{reader.name}: {reader.trouble[:TOLD]}"


def _compared(who: str, found: Sequence[str], wanted: Sequence[str]) -> Iterator[str]:
    have, want = Counter(found), Counter(wanted)
    for word, keys in (("lacks", want - have), ("has too often", have - want)):
        if keys:
            places = [f"{key} ({_place(key, wanted, found)})" for key in list(keys)[:TOLD]]
            yield f"{who} {word} {keys.total()}: {', '.join(places)}"


def _place(key: str, wanted: Sequence[str], found: Sequence[str]) -> str:
    """Say where an event belongs, or where it was found if it belongs nowhere."""
    if key in wanted:
        return f"number {wanted.index(key) + 1} of {len(wanted)}"
    return f"found at {found.index(key) + 1} of {len(found)}"
