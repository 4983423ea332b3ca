"""The HTML of the elements: one function makes each, and the template tags are thin around them.

The cursor is taken before the data is read: what changes in between comes again over the stream, under the same key,
and nothing is missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from .access import may_read, signed_name
from .exceptions import FeedError, HistoryUnavailable
from .feeds import LiveFeed
from .items import render_item
from .links import nowhere, page_cursor, stream_url
from .listing import Listing, blank, count_now, listed, owner, plain, value_now
from .registry import registry
from .script import worker_url
from .texts import feed_texts
from .topics import sign_topic
from .viewers import Viewer, page_viewer

INSERT = ("prepend", "append")
#: Messages that are shown at a time, and the seconds that each stays.
TOASTS, TOAST_SECONDS = 3, 8


def live_feed(request: HttpRequest, topic: str, *, limit: int = 0, insert: str = "", label: str = "") -> SafeString:
    """Return a ``<live-feed>`` with the topic's current items inside, or nothing for a viewer who may not read it.

    Raises :exc:`InvalidTopic` for a malformed name, :exc:`FeedError` for a topic that no feed owns or a feed that
    can't list its items.
    """
    feed = owner(topic)
    viewer = page_viewer(request)
    if not may_read(viewer, topic):
        return SafeString()
    if not (isinstance(limit, int) and limit >= 0):
        raise FeedError(f"limit is {limit!r}. Use a number of items, or 0 for as many as the feed shows.")
    insert, limit = _choice("insert", insert or feed.insert, INSERT), limit or feed.limit
    attributes = _address(request, viewer, topic)
    listing = listed(feed, topic, viewer.user, limit, insert)
    attributes |= {"limit": str(limit), "insert": insert}
    attributes |= {"order": " ".join(listing.order)} if listing.order else {}
    attributes |= {"render": "html"} if feed.html else {}
    texts = feed_texts()
    context = {
        "attributes": attribute_text(attributes, texts),
        "texts": texts,
        "insert": insert,
        "label": label or _label(feed),
        "items": item_list(feed, topic, listing),
        "blank": "" if feed.html else render_item(feed, topic, blank(feed, listing.data)),
    }
    return render_to_string("livefeed/feed.html", context)


def live_value(request: HttpRequest, topic: str, content: str, *, key: Any = None, cursor: str = "") -> SafeString:
    """Return a ``<live-value>`` around ``content``, or nothing for a viewer who may not read the topic.

    It shows the data of the row with this key, else of the topic's newest event. With a ``cursor`` the page has read
    its own data, and wrote it into the content. Raises what :func:`live_feed` and :func:`signed_name` raise.
    """
    if key is not None:
        owner(topic)
        if not str(key):
            raise FeedError(f"The key of a value of {topic!r} is empty. Give the primary key of an object, or none.")
    viewer = _reader(request, topic)
    if viewer is None:
        return SafeString()
    bound = {} if key is None else {"key": str(key)}
    if not cursor:
        cursor, value = _value(topic, viewer.user, bound.get("key"))
        bound |= {"value": value} if value else {}
    attributes = attribute_text(_address(request, viewer, topic, cursor) | bound)
    return format_html("<live-value{}>{}</live-value>", attributes, content)


def live_counter(request: HttpRequest, topic: str) -> SafeString:
    """Return a ``<live-counter>`` of the topic's items, or nothing for a viewer who may not read it.

    Raises what :func:`live_feed` raises, and :exc:`FeedError` where each viewer may see another number.
    """
    feed = owner(topic)
    viewer = page_viewer(request)
    if not may_read(viewer, topic):
        return SafeString()
    taken, count = count_now(feed, topic, page_cursor)
    address = _address(request, viewer, topic, taken)
    return format_html("<live-counter{}>{}</live-counter>", attribute_text(address | {"value": str(count)}), count)


def live_toasts(
    request: HttpRequest,
    topic: str,
    content: str = "",
    *,
    limit: int = TOASTS,
    seconds: float = TOAST_SECONDS,
    label: str = "",
    cursor: str = "",
) -> SafeString:
    """Return a ``<live-toasts>`` whose messages are rendered from ``content``, else are the events' text; or nothing
    for a viewer who may not read the topic. It begins with what happens from now on, or behind ``cursor``.

    Raises what :func:`live_value` raises, and :exc:`FeedError` for a limit or a time that can't be.
    """
    if not (isinstance(limit, int) and limit > 0):
        raise FeedError(f"limit is {limit!r}. Use the number of messages that are shown at a time, from 1.")
    if not (isinstance(seconds, (int, float)) and 0 <= seconds <= 3600):
        raise FeedError(f"seconds is {seconds!r}. Use a number up to 3600, or 0 for messages that stay.")
    viewer = _reader(request, topic)
    if viewer is None:
        return SafeString()
    attributes = _address(request, viewer, topic, cursor) | {"limit": str(limit), "seconds": f"{seconds:g}"}
    context = {
        "attributes": attribute_text(attributes),
        "label": label or pgettext("livefeed", "Messages"),
        "content": content if content.strip() else "",
        "dismiss": pgettext("livefeed", "Dismiss"),
    }
    return render_to_string("livefeed/toasts.html", context)


def _value(topic: str, user: Any, key: str | None) -> tuple[str, str]:
    try:
        return value_now(topic, user, key)
    except HistoryUnavailable as error:
        return nowhere([topic], error), ""


def _choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value in choices:
        return value
    known = " or ".join(f'"{choice}"' for choice in choices)
    raise FeedError(f"{name} is {value!r}. Use {known}.")


def _reader(request: HttpRequest, topic: str) -> Viewer | None:
    """Return who the page is for, None where that may not read the topic. One that no feed owns is opened to them."""
    if registry.owner(plain(topic)) is None:
        signed_name(request, topic)  # begins the session of who has none
        return page_viewer(request)
    viewer = page_viewer(request)
    return viewer if may_read(viewer, topic) else None


def _address(request: HttpRequest, viewer: Viewer, topic: str, cursor: str = "") -> dict[str, str]:
    """Return what every element has to say of where its events come from, and for whom."""
    worker = worker_url(request)
    return {
        "src": stream_url(),
        "topic": sign_topic(topic, viewer.key),
        "cursor": cursor or page_cursor(topic),
        "viewer": viewer.digest,
        **({"worker": worker} if worker else {}),
    }


def attribute_text(values: Mapping[str, str], texts: Mapping[str, str] | None = None) -> SafeString:
    """Return attributes as they stand in a tag, each behind a space."""
    named = [*values.items(), *((f"data-text-{name}", text) for name, text in (texts or {}).items())]
    return format_html_join("", ' {}="{}"', named)


def item_list(feed: LiveFeed, topic: str, listing: Listing) -> SafeString:
    """Return items one after the other, each by the feed's template."""
    return mark_safe("".join(render_item(feed, topic, item, listing.order) for item in listing.data))


def _label(feed: LiveFeed) -> str:
    return str(feed.model._meta.verbose_name_plural) if feed.model is not None else _("Live feed")
