"""Target ``parsers``: the parser that livefeed ships and the reference agree on every stream, wherever it is cut."""

from __future__ import annotations

from random import Random

from livefeed.testing.streams import EventStreamParser

from . import words
from .expecting import expect
from .reference import parsed, portions
from .words import Case

_LINE_ENDS = ["\n", "\n", "\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\n\r"]
_STARTS = ["data:", "data: ", "data", "id:", "id: ", "id", "event:", "event: ", "retry:", "retry: ", "topic: ", ":", ""]


def make(random: Random) -> Case:
    lines = [
        random.choice(_STARTS) + words.latin(random) + random.choice(_LINE_ENDS) for _ in range(random.randrange(12))
    ]
    bom = random.choice(["", "", "", "\xef\xbb\xbf", "\xef\xbb", "\xef\xbb\xbf\xef\xbb\xbf"])
    return {"stream": bom + "".join(lines), "cuts": words.cuts(random)}


def check(case: Case) -> None:
    stream = case["stream"].encode("latin-1", "replace")
    ours = EventStreamParser()
    events = [event for portion in portions(stream, case["cuts"]) for event in ours.push(portion)]
    theirs = parsed(stream, case["cuts"])
    whole = parsed(stream)
    expect(theirs.events == whole.events, f"the reference depends on the cuts: {theirs.events} {whole.events}")
    found = [(event.type, event.data, event.id, event.topic) for event in events]
    expect(found == [tuple(event) for event in theirs.events], f"they differ: {found} {theirs.events}")
    expect(ours.last_event_id == theirs.last_event_id, f"ids differ: {ours.last_event_id!r} {theirs.last_event_id!r}")
    expect(ours.retry == theirs.retry, f"retry differs: {ours.retry} {theirs.retry}")
    expect(ours.comments == theirs.comments, f"comments differ: {ours.comments} {theirs.comments}")
