"""``{% load livefeed %}``: the widget, its script, and a cursor for pages that read their own data."""

from __future__ import annotations

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from .. import html
from ..viewers import page_viewer

register = template.Library()


@register.simple_tag
def livefeed_script() -> SafeString:
    """Load the widget: one style sheet and one module, both from the site's own static files."""
    return format_html(
        '<link rel="stylesheet" href="{}">\n<script type="module" src="{}"></script>',
        static("livefeed/livefeed.css"),
        static("livefeed/livefeed.js"),
    )


@register.simple_tag(takes_context=True)
def livefeed(context: Any, topic: str, *, limit: int = 0, insert: str = "", label: str = "") -> SafeString:
    """Show a topic as a live list: ``{% livefeed "news.article" limit=20 insert="prepend" label="News" %}``."""
    return html.live_feed(_request(context), topic, limit=limit, insert=insert, label=label)


@register.simple_tag(takes_context=True)
def livefeed_cursor(context: Any, *topics: str) -> str:
    """Write the cursor of topics. Place it before anything on the page reads the data."""
    return html.cursor_for(page_viewer(_request(context)), topics)


@register.simple_tag(takes_context=True)
def livefeed_url(context: Any, *topics: str) -> str:
    """Write the URL of a stream of topics, for a client of your own: ``{% livefeed_url "build:42" "news.article" %}``.

    A topic that no feed owns is opened by it to whoever the page is for, and to nobody else: its name is signed. Of a
    feed's topics those are left out that its rule does not open; where nothing is left the URL is "". It begins at the
    cursor of now, so place it before anything on the page reads the data.
    """
    return html.signed_url(_request(context), topics)


def _request(context: Any) -> HttpRequest:
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured(
            "The livefeed tags need the request in the template's context, to know who is looking. Render with "
            'render(request, …) and "django.template.context_processors.request" in the TEMPLATES setting.'
        )
    return request  # type: ignore[no-any-return]
