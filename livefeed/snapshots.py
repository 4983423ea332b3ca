"""What an element takes over after a reset: items, their number or a value, with the cursor from before it was read."""

from __future__ import annotations

from typing import Any

from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

from .history import cursor
from .html import attribute_text, item_list
from .listing import count_now, listed, owner, value_now


def snapshot(topic: str, user: Any, limit: int = 0, insert: str = "") -> SafeString:
    """Return the items of a topic as this user sees them, and their cursor: what the widget shows after a reset."""
    feed = owner(topic)
    taken = cursor(topic)
    listing = listed(feed, topic, user, limit or feed.limit, insert or feed.insert)
    return render_to_string("livefeed/snapshot.html", {"cursor": taken, "items": item_list(feed, topic, listing)})


def count_snapshot(topic: str) -> SafeString:
    """Return how many items a topic has, and its cursor."""
    feed = owner(topic)
    taken, count = count_now(feed, topic, cursor)
    return _said(taken, str(count))


def value_snapshot(topic: str, user: Any, key: str | None = None) -> SafeString:
    """Return the data of a topic's row with this key, else of its newest event, for this user; and its cursor."""
    taken, value = value_now(topic, user, key)
    return _said(taken, value)


def _said(taken: str, value: str) -> SafeString:
    attributes = {"data-cursor": taken, **({"data-value": value} if value else {})}
    return format_html("<div data-live-snapshot{}></div>", attribute_text(attributes))
