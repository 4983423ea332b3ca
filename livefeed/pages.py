"""One page of history as JSON: for scripts, for a look by hand, for clients behind a proxy that holds streams back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import Any, NamedTuple

from .cursors import Cursor, Position, entry, join
from .events import Event
from .history import EMPTY, Head, get_history, position_of
from .resuming import best, lost

#: Events on one page.
LIMIT = 200


class _Placed(NamedTuple):
    epoch: str
    event: Event


def history_page(topics: Sequence[str], cursor: Cursor | None) -> dict[str, Any]:
    """Return what follows the cursor, at most LIMIT events, and the next cursor; without one, just a cursor."""
    positions: dict[str, Position] = {}
    sources: list[Iterator[_Placed]] = []
    resets: list[dict[str, str]] = []
    unread = False
    for topic, head in _heads(topics):
        claims = cursor.positions(topic) if cursor else []
        position = best(claims, head) if claims else position_of(head)
        if reason := lost(position, head):
            resets.append({"topic": topic, "reason": reason})
            position = position_of(head)
        positions[topic] = position
        page = get_history().read(topic, position.seq, LIMIT) if position.seq < head.seq else None
        if page is not None:
            sources.append(_placed(page.head.epoch, page.events))
            unread |= len(page.events) == LIMIT
    events: list[dict[str, Any]] = []
    for epoch, event in merge(*sources, key=lambda placed: placed.event.created_at):
        if len(events) == LIMIT:
            unread = True
            break
        positions[event.topic] = Position(epoch, event.seq or 0)
        events.append(event.as_json())
    next_cursor = join(entry(topic, position) for topic, position in positions.items())
    return {"topics": list(topics), "events": events, "cursor": next_cursor, "more": unread, "resets": resets}


def _heads(topics: Sequence[str]) -> Iterator[tuple[str, Head]]:
    heads = get_history().heads(topics)
    return ((topic, heads.get(topic, EMPTY)) for topic in topics)


def _placed(epoch: str, events: Iterable[Event]) -> Iterator[_Placed]:
    return (_Placed(epoch, event) for event in events)
