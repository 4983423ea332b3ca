"""Seeing what is published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import relay
from ..events import Event
from ..signals import event_published


@contextmanager
def capture_events(topic: str | None = None) -> Iterator[list[Event]]:
    """Collect the events that this process publishes within the block, of all topics or of one::

    with capture_events("news.article") as events:
        article.save()
    assert [event.type for event in events] == ["updated"]

    At the end of the block all of them are there, also where the process has a relay (which it has not in tests).
    """
    events: list[Event] = []

    def note(*, event: Event, **kwargs: Any) -> None:
        if topic in {None, event.topic}:
            events.append(event)

    event_published.connect(note, weak=False)
    try:
        yield events
        relay.flush()
    finally:
        event_published.disconnect(note)
