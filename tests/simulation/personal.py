"""A feed that shows each reader something else: who sees which event, and where a position may pass one in silence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from livefeed import Event, LiveFeed
from livefeed.cursors import Position
from livefeed.registry import registry
from livefeed.viewers import Viewer

from .store import STORE, Store

#: How many kinds of readers there are; a third of the events is hidden from each.
KINDS = 3


def personal_topic(seed: int) -> str:
    """Return the topic of a run that looks different to each reader, or "" where none does."""
    draw = random.Random(f"personal {seed}")
    return draw.choice("abc") if draw.random() < 0.4 else ""


def viewer(kind: int) -> Viewer:
    return Viewer(SimpleNamespace(pk=kind, is_authenticated=True), None, "127.0.0.1")


def is_hidden(kind: int, n: int) -> bool:
    return n % KINDS == kind


@contextmanager
def personal_feed(topic: str) -> Iterator[None]:
    """Have a feed that shows every reader what is theirs, after a while."""

    class PersonalFeed(LiveFeed):
        name = topic or "nothing"

        def get_data_for(self, user: Any, event: Event) -> Any:
            STORE[0].world.pause()
            data = event.data
            return None if is_hidden(user.pk, data["n"]) else {**data, "for": user.pk}

    if topic:
        registry.add(PersonalFeed)
    try:
        yield
    finally:
        registry.remove(PersonalFeed)


def may_pass(store: Store, topic: str, kind: int, before: Position, after: Position) -> bool:
    """Tell whether all that lies between two positions is hidden from a kind of reader."""
    if before.epoch and before.epoch != after.epoch:
        return False
    passed = set(range(before.seq + 1, after.seq + 1))
    hidden = {seq for name, seq, n in store.numbers if name == topic and seq in passed and is_hidden(kind, n)}
    return hidden == passed and after.seq >= before.seq
