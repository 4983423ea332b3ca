"""What is there of a topic when a page is made: its items, how many they are, or its newest value, for one viewer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import QuerySet

from .cursors import entry
from .events import Event, encode
from .exceptions import FeedError, InvalidTopic
from .feeds import LiveFeed
from .history import EMPTY, Head, get_history, position_of, unbroken
from .items import event_data, main_order
from .ordering import order_of, reversed_order
from .personal import seen
from .registry import registry
from .topics import is_signed, validate_topic

logger = logging.getLogger("livefeed.html")

#: Times as many items as are shown are looked through for those that their viewer may see; and so many events.
PLENTY = 5
#: Times that items are counted at most until none has come or gone meanwhile.
COUNTS = 5

T = TypeVar("T")


class Listing(NamedTuple):
    """The data of a topic's items in the order of the page, and the names of what they are ordered by, if known."""

    data: list[dict[str, Any]]
    order: tuple[str, ...]


def plain(topic: str) -> str:
    """Return a topic's name as a template tag takes it. Raises :exc:`InvalidTopic` for one that is signed already."""
    if is_signed(topic):
        raise InvalidTopic(f"{topic!r} is a signed name. Give the topic's own name; the tag signs it.")
    return validate_topic(topic)


def owner(topic: str) -> LiveFeed:
    """Return the feed of a topic, whose items are shown. Raises :exc:`FeedError` where no feed owns it."""
    feed = registry.owner(plain(topic))
    if feed is None:
        raise FeedError(f"No feed owns the topic {topic!r}. Declare one in livefeeds.py, or check the spelling.")
    return feed


def items_looked_at(topic: str, limit: int) -> int:
    """Return how many items are read at most to show so many (0: as many as the feed says). Raises FeedError."""
    feed = owner(topic)
    return (limit or feed.limit) * (PLENTY if feed.is_personal else 1)


def listed(feed: LiveFeed, topic: str, user: Any, limit: int, insert: str) -> Listing:
    """Return so many items as the page shows them: those nearest to where new ones come in."""
    count = items_looked_at(topic, limit)
    nothing: tuple[list[Any], tuple[str, ...]] = ([], ())
    found, order = _ask(feed, topic, lambda items: _nearest(feed, items, count), nothing)
    if feed.is_personal:
        looks = (_as_seen(feed, topic, user, item) for item in found)
        data = list(islice((look for look in looks if look is not None), limit))
    else:
        data = [feed.data_of(item) for item in found]
    order = order if insert == feed.insert else reversed_order(order)
    return Listing(data if insert == "prepend" else data[::-1], order)


def counted(feed: LiveFeed, topic: str) -> int:
    """Return how many items a topic has. Raises :exc:`FeedError` where viewers may each see another number."""
    if feed.is_personal:
        raise FeedError(
            f"The items of {topic!r} can't be counted: {type(feed).__name__}.get_data_for() may hide some of them from "
            "some viewers, and its events would not say which. Give those viewers a topic of their own."
        )
    return _ask(feed, topic, lambda items: items.count(), 0)


def count_now(feed: LiveFeed, topic: str, cursor_of: Callable[[str], str]) -> tuple[str, int]:
    """Return a topic's cursor and how many items it has there.

    A count can't be repaired by key as a list can: what is counted already would be counted again when its event comes.
    So the cursor has to be the same before and after; on a topic that never rests the last count is taken as it is.
    """
    taken = cursor_of(topic)
    for _ in range(COUNTS):
        before, count = taken, counted(feed, topic)
        taken = cursor_of(topic)
        if taken == before:
            break
    return before, count


def value_now(topic: str, user: Any, key: str | None) -> tuple[str, str]:
    """Return a topic's cursor and, as JSON, the data of its row with this key, else of its newest event up to there;
    "" for none that this user may see. Raises :exc:`HistoryUnavailable`."""
    head = get_history().heads([topic]).get(topic, EMPTY)
    value = _newest_value(topic, user, head) if key is None else _row_value(owner(topic), topic, user, key)
    return entry(topic, position_of(head)), value


def blank(feed: LiveFeed, data: list[dict[str, Any]]) -> dict[str, str]:
    """Return an item without values, with every field that one of these has."""
    names = [name for item in data for name in item] if feed.is_personal else list(data[0]) if data else []
    return dict.fromkeys(names or ["pk", *feed.field_names], "")


def _nearest(feed: LiveFeed, items: QuerySet[Any], count: int) -> tuple[list[Any], tuple[str, ...]]:
    order = order_of(feed, items)
    if feed.html and _unsigned(order) != _unsigned(main_order(feed)):
        order = ()  # events of all the feed's topics bring the same
    return list((items if feed.insert == "prepend" else items.reverse())[:count]), order


def _unsigned(order: tuple[str, ...]) -> list[str]:
    return [name.lstrip("-") for name in order]


def _ask(feed: LiveFeed, topic: str, question: Callable[[QuerySet[Any]], T], nothing: T, *, strict: bool = True) -> T:
    """Ask the rows of a topic: ``nothing``, where a key is one that no row can have, as a word for a number."""
    try:
        return question(feed.get_queryset(topic))
    except (ValueError, OverflowError, ValidationError, DataError) as error:
        if strict and topic == feed.name:
            raise
        logger.warning("%s has no items: %s.get_queryset failed: %r", topic, type(feed).__name__, error)
        return nothing


def _as_seen(feed: LiveFeed, topic: str, user: Any, item: Any) -> dict[str, Any] | None:
    """Return an item as this user sees it, with its key, by which the page finds it again; None where it is hidden."""
    event = seen(user, Event(topic, "created", encode(feed.data_of(item)), id=f"item {item.pk}"))
    data = None if event is None else event.data
    if data is not None and not isinstance(data, dict):
        logger.error("Item %s of %s is hidden: %s.get_data_for returned no dict.", item.pk, topic, type(feed).__name__)
    return {"pk": item.pk, **data} if isinstance(data, dict) else None


def _row_value(feed: LiveFeed, topic: str, user: Any, key: str) -> str:
    def row(items: QuerySet[Any]) -> Any:
        if items.query.is_sliced:
            raise FeedError(f"{type(feed).__name__}.get_queryset() is sliced, so no row can be found by its key.")
        return items.filter(pk=key).first()

    found = _ask(feed, topic, row, None, strict=False)
    if found is None:
        return ""
    data = _as_seen(feed, topic, user, found) if feed.is_personal else event_data(feed, found)
    return "" if data is None else encode(data)


def _newest_value(topic: str, user: Any, head: Head) -> str:
    """Where a feed shows viewers different things, no more than a few events are looked through."""
    feed = registry.owner(topic)
    count = PLENTY if feed is not None and feed.is_personal else 1
    page = get_history().read(topic, max(head.seq - count, 0), count) if head.seq else None
    events = unbroken(page.events) if page is not None and page.head.epoch == head.epoch else ()
    looks = (seen(user, event) for event in reversed(events))
    newest = next((look for look in looks if look is not None), None)
    return "" if newest is None else newest.json
