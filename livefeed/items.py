"""One item of a feed as HTML, by the feed's template; and what the event of a changed row says.

The data of an event is what the browser renders an item from. A feed with ``html = True`` has it rendered here, once
for everybody, where the event is published.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings as django_settings
from django.db import models
from django.template.loader import select_template
from django.utils import timezone, translation
from django.utils.safestring import SafeString

from .events import encode
from .feeds import LiveFeed
from .ordering import order_of, place

logger = logging.getLogger("livefeed.items")


def event_data(feed: LiveFeed, instance: models.Model) -> dict[str, Any]:
    """Return what an event says of a row: the feed's data; or its HTML, and what the page puts it into its place by."""
    data = feed.data_of(instance)
    if not feed.html:
        return data
    order = main_order(feed)
    known = {name: data[name] for name in (term.lstrip("-") for term in order) if name in data}
    return {"pk": data["pk"], **known, "html": item_html(feed, data, order)}


def main_order(feed: LiveFeed) -> tuple[str, ...]:
    """Return the order of the feed's main topic, which its events bring the values of; asked for once."""
    if feed not in _orders:
        try:
            _orders[feed] = order_of(feed, feed.get_queryset(feed.name))
        except Exception as error:  # a feed may have no items there, and the writer whose row it is needs none
            logger.info("The order of %s is not known to pages: %r", feed.name, error)
            _orders[feed] = ()
    return _orders[feed]


_orders: WeakKeyDictionary[LiveFeed, tuple[str, ...]] = WeakKeyDictionary()


def render_item(feed: LiveFeed, topic: str, data: Mapping[str, Any], order: Sequence[str] = ()) -> SafeString:
    """Return one item, by the feed's template; its values are what the JSON of an event holds."""
    if feed.html:
        return item_html(feed, data, order)
    item = json.loads(encode(data))
    return _rendered(feed, item, place(item, order), topic)


def item_html(feed: LiveFeed, data: Mapping[str, Any], order: Sequence[str]) -> SafeString:
    """Return one item of a feed with ``html = True``: the same for everybody, wherever it is rendered.

    So nobody's language and time zone but the site's own: who saves a row is not who reads it.
    """
    zone = timezone.override(timezone.get_default_timezone())
    with translation.override(django_settings.LANGUAGE_CODE), zone:
        return _rendered(feed, data, place(json.loads(encode(data)), order) if order else "", feed.name)


def _rendered(feed: LiveFeed, item: Mapping[str, Any], place: str, topic: str) -> SafeString:
    names = [f"livefeed/{feed.name.replace('.', '/')}.html", "livefeed/item.html"]
    fields = [(name, value) for name, value in item.items() if name != "pk"]
    context = {"item": item, "key": item["pk"], "feed": feed, "topic": topic, "order": place}
    text: SafeString = select_template(names).render({**context, "fields": fields})
    return text
