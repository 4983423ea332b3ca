"""Where the elements of a page connect, and from where on: the stream's URL, and cursors as of now."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from .access import may_read, signed_name
from .cursors import entry, join
from .exceptions import HistoryUnavailable
from .history import cursor
from .registry import registry
from .resuming import NOWHERE
from .topics import validate_topic
from .viewers import Viewer, page_viewer

logger = logging.getLogger("livefeed.html")


def stream_url() -> str:
    """Return where streams are served. Raises ImproperlyConfigured where ``livefeed.urls`` is not included."""
    try:
        return reverse("livefeed:stream")
    except NoReverseMatch as error:
        raise ImproperlyConfigured('Add path("livefeed/", include("livefeed.urls")) to your URLconf.') from error


def cursor_for(viewer: Viewer, topics: tuple[str, ...]) -> str:
    """Return the cursor of topics, for pages that read their data themselves; "" where the viewer may read none."""
    return page_cursor(*(topic for topic in topics if registry.owner(topic) is None or may_read(viewer, topic)))


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
    query = [*(("topic", name) for name in names.values()), ("since", page_cursor(*names)), ("viewer", viewer.digest)]
    return f"{stream_url()}?{urlencode(query)}" if names else ""


def page_cursor(*topics: str) -> str:
    """Return the cursor of topics. A page can do without: where the history is away, its stream begins with a reset."""
    try:
        return cursor(*topics)
    except HistoryUnavailable as error:
        return nowhere(topics, error)


def nowhere(topics: Iterable[str], error: HistoryUnavailable) -> str:
    """Return the cursor of a page that is made while the history is away: it ends in a reset, and so in a snapshot."""
    logger.warning("The history is away (%s); pages load what they show anew when it is back.", error)
    return join(entry(topic, NOWHERE) for topic in topics)
