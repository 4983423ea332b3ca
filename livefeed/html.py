"""The HTML of the widget: one function makes it, the template tags and the snapshot view are thin around it.

The cursor is taken before the items are read: what changes in between comes again over the stream, under the same key,
and nothing is missed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import DataError
from django.http import HttpRequest
from django.template.loader import render_to_string, select_template
from django.urls import NoReverseMatch, reverse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from .access import may_read, signed_name
from .cursors import entry, join
from .events import Event, encode
from .exceptions import FeedError, HistoryUnavailable, InvalidTopic
from .feeds import LiveFeed
from .history import cursor
from .personal import seen
from .registry import registry
from .resuming import NOWHERE
from .topics import is_signed, sign_topic, validate_topic
from .viewers import Viewer, page_viewer

logger = logging.getLogger("livefeed.html")

INSERT = ("prepend", "append")
#: Times as many items as the widget shows are looked through for those that its viewer may see.
PLENTY = 5


def live_feed(request: HttpRequest, topic: str, *, limit: int = 0, insert: str = "", label: str = "") -> SafeString:
    """Return a ``<live-feed>`` with the topic's current items inside, or nothing for a viewer who may not read it.

    Raises :exc:`InvalidTopic` for a malformed name, :exc:`FeedError` for a topic that no feed owns or a feed that
    can't list its items.
    """
    feed = owner(topic)
    viewer = page_viewer(request)
    if not may_read(viewer, topic):
        return SafeString()
    insert = insert or feed.insert
    if insert not in INSERT:
        raise FeedError(f'insert is {insert!r}. Use "prepend" or "append".')
    context = {
        "src": stream_url(),
        "name": sign_topic(topic, viewer.key),
        "cursor": _page_cursor(topic),
        "viewer": viewer.digest,
        "limit": limit or feed.limit,
        "insert": insert,
        "label": label or _label(feed),
    }
    items = item_data(feed, topic, viewer.user, limit or feed.limit, insert)
    context["items"] = render_items(feed, topic, items)
    context["blank"] = render_item(feed, topic, _blank(feed, items))
    return render_to_string("livefeed/feed.html", context)


def snapshot(topic: str, user: Any, limit: int = 0, insert: str = "") -> SafeString:
    """Return the items of a topic as this user sees them, and their cursor: what the widget shows after a reset."""
    feed = owner(topic)
    taken = cursor(topic)
    items = item_data(feed, topic, user, limit or feed.limit, insert or feed.insert)
    return render_to_string("livefeed/snapshot.html", {"cursor": taken, "items": render_items(feed, topic, items)})


def owner(topic: str) -> LiveFeed:
    """Return the feed of a topic, whose items are shown. Raises :exc:`FeedError` where no feed owns it."""
    if is_signed(topic):
        raise InvalidTopic(f"{topic!r} is a signed name. Give the topic's own name; the tag signs it.")
    feed = registry.owner(validate_topic(topic))
    if feed is None:
        raise FeedError(f"No feed owns the topic {topic!r}. Declare one in livefeeds.py, or check the spelling.")
    return feed


def items_looked_at(topic: str, limit: int) -> int:
    """Return how many items are read at most to show so many (0: as many as the feed says). Raises FeedError."""
    feed = owner(topic)
    return (limit or feed.limit) * (PLENTY if feed.is_personal else 1)


def item_data(feed: LiveFeed, topic: str, user: Any, limit: int, insert: str) -> list[dict[str, Any]]:
    """Return the data of a topic's items in the order of the page: those nearest to where new ones come in."""
    if feed.is_personal:
        nearest = _nearest(feed, topic, items_looked_at(topic, limit))
        looks = (_as_seen(feed, topic, user, item) for item in nearest)
        data = list(islice((look for look in looks if look is not None), limit))
    else:
        data = [feed.data_of(item) for item in _nearest(feed, topic, limit)]
    return data if insert == "prepend" else data[::-1]


def _nearest(feed: LiveFeed, topic: str, count: int) -> list[Any]:
    """Return so many items of a topic: none, where its key is one that no row can have, as a word for a number."""
    try:
        items = feed.get_queryset(topic)
        return list((items if feed.insert == "prepend" else items.reverse())[:count])
    except (ValueError, OverflowError, ValidationError, DataError) as error:
        if topic == feed.name:
            raise
        logger.warning("%s has no items: %s.get_queryset failed: %r", topic, type(feed).__name__, error)
        return []


def _as_seen(feed: LiveFeed, topic: str, user: Any, item: Any) -> dict[str, Any] | None:
    """Return an item as this user sees it, with its key, by which the page finds it again; None where it is hidden."""
    event = seen(user, Event(topic, "created", encode(feed.data_of(item)), id=f"item {item.pk}"))
    data = None if event is None else event.data
    if data is not None and not isinstance(data, dict):
        logger.error("Item %s of %s is hidden: %s.get_data_for returned no dict.", item.pk, topic, type(feed).__name__)
    return {"pk": item.pk, **data} if isinstance(data, dict) else None


def _blank(feed: LiveFeed, items: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return an item without values, with every field that one of these has."""
    names = [name for item in items for name in item] if feed.is_personal else list(items[0]) if items else []
    return dict.fromkeys(names or ["pk", *feed.field_names], "")


def render_items(feed: LiveFeed, topic: str, items: Iterable[dict[str, Any]]) -> SafeString:
    """Return items one after the other, each by the feed's template."""
    return mark_safe("".join(render_item(feed, topic, item) for item in items))


def render_item(feed: LiveFeed, topic: str, data: dict[str, Any]) -> SafeString:
    """Return one item, by the feed's template; its values are what the JSON of an event holds."""
    item = json.loads(encode(data))
    names = [f"livefeed/{feed.name.replace('.', '/')}.html", "livefeed/item.html"]
    fields = [(name, value) for name, value in item.items() if name != "pk"]
    context = {"item": item, "key": item["pk"], "feed": feed, "topic": topic}
    text: SafeString = select_template(names).render({**context, "fields": fields})
    return text


def stream_url() -> str:
    """Return where streams are served. Raises ImproperlyConfigured where ``livefeed.urls`` is not included."""
    try:
        return reverse("livefeed:stream")
    except NoReverseMatch as error:
        raise ImproperlyConfigured('Add path("livefeed/", include("livefeed.urls")) to your URLconf.') from error


def cursor_for(viewer: Viewer, topics: tuple[str, ...]) -> str:
    """Return the cursor of topics, for pages that read their data themselves; "" where the viewer may read none."""
    return _page_cursor(*(topic for topic in topics if registry.owner(topic) is None or may_read(viewer, topic)))


def signed_url(request: HttpRequest, topics: Sequence[str]) -> str:
    """Return the URL of a stream of topics, from now on, for whoever sent this request; "" where they may read none.

    Raises :exc:`InvalidTopic`, and what :func:`~livefeed.access.signed_name` raises.
    """
    viewer = page_viewer(request)
    names: dict[str, str] = {}
    for topic in topics:
        if registry.owner(validate_topic(topic)) is None:
            names[topic] = signed_name(request, topic)
        elif may_read(viewer, topic):
            names[topic] = topic
    query = [*(("topic", name) for name in names.values()), ("since", _page_cursor(*names)), ("viewer", viewer.digest)]
    return f"{stream_url()}?{urlencode(query)}" if names else ""


def _page_cursor(*topics: str) -> str:
    """Return the cursor of topics. A page can do without: where the history is away, its stream begins with a reset."""
    try:
        return cursor(*topics)
    except HistoryUnavailable as error:
        logger.warning("The history is away (%s); pages load their items anew when it is back.", error)
        return join(entry(topic, NOWHERE) for topic in topics)


def _label(feed: LiveFeed) -> str:
    return str(feed.model._meta.verbose_name_plural) if feed.model is not None else _("Live feed")
