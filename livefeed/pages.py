"""One page of history as JSON: for scripts, for a look by hand, for clients behind a proxy that holds streams back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import Any, NamedTuple

from .cursors import Cursor, Position, entry, join
from .events import Event
from .history import EMPTY, PAGE_BYTES, get_history, position_of, unbroken
from .personal import has_names, seen
from .resuming import best, missed

#: Events on one page.
LIMIT = 200


class HistoryPage(NamedTuple):
    """What a client gets, and how many events were read for that."""

    content: dict[str, Any]
    read: int


class _Placed(NamedTuple):
    epoch: str
    event: Event


def history_page(topics: Sequence[str], cursor: Cursor | None, user: Any) -> HistoryPage:
    """Return what follows the cursor, at most LIMIT events, and the next cursor; without one, just a cursor.

    Events are shown as this user sees them; what is hidden counts too, so a page may be empty and have more behind it.
    """
    positions: dict[str, Position] = {}
    sources: list[Iterator[_Placed]] = []
    resets: list[dict[str, str]] = []
    unread, read = False, 0
    heads = get_history().heads(topics)
    for topic in topics:
        head = heads.get(topic, EMPTY)
        positions[topic] = position_of(head)
        if claims := cursor.positions(topic) if cursor else []:
            position = best(claims, head)
            page = get_history().read(topic, position.seq, LIMIT, PAGE_BYTES // len(topics))
            read += len(page.events)
            if reason := missed(position, page.head, (page.events[0].seq if page.events else None)):
                resets.append({"topic": topic, "reason": reason})
                positions[topic] = position_of(page.head)
            else:
                positions[topic] = position
                found = unbroken(page.events)
                sources.append(_placed(page.head.epoch, found))
                unread |= page.cut or len(found) < len(page.events)
    events: list[dict[str, Any]] = []
    for count, (epoch, event) in enumerate(merge(*sources, key=lambda placed: placed.event.created_at)):
        if count == LIMIT:
            unread = True
            break
        positions[event.topic] = Position(epoch, event.seq or 0)
        if (mine := seen(user, event)) is not None:
            events.append(mine.as_json())
    next_cursor = join(entry(topic, position) for topic, position in positions.items())
    content = {
        "topics": list(topics),
        "unnamed": [topic for topic in topics if not has_names(topic)],
        "events": events,
        "cursor": next_cursor,
        "more": unread,
        "resets": resets,
    }
    return HistoryPage(content, read)


def _placed(epoch: str, events: Iterable[Event]) -> Iterator[_Placed]:
    return (_Placed(epoch, event) for event in events)
