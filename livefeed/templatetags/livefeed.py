"""``{% load livefeed %}``: the elements, their script, and a cursor for pages that read their own data."""

from __future__ import annotations

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from .. import html, links
from ..viewers import page_viewer

register = template.Library()


@register.simple_tag(takes_context=True)
def livefeed_script(context: Any, *, nonce: Any = None) -> SafeString:
    """Load the elements: one style sheet and one module, both from the site's own static files.

    Where the site's policy goes by nonces, both have the one of this response: from Django's context processor, from
    django-csp's, or as ``nonce=request.csp_nonce``.
    """
    given = [nonce, context.get("csp_nonce"), context.get("CSP_NONCE")]
    found = next((str(one) for one in given if one is not None), "")  # a lazy one is false until somebody reads it
    return format_html(
        '<link rel="stylesheet" href="{}"{}>\n<script type="module" src="{}"{}></script>',
        static("livefeed/livefeed.css"),
        format_html(' nonce="{}"', found) if found else "",
        static("livefeed/livefeed.js"),
        format_html(' nonce="{}"', found) if found else "",
    )


@register.simple_tag(takes_context=True)
def livefeed(context: Any, topic: str, *, limit: int = 0, insert: str = "", label: str = "") -> SafeString:
    """Show a topic as a live list: ``{% livefeed "news.article" limit=20 insert="prepend" label="News" %}``.

    While the end of the list where they come in is out of sight, new items wait until they are asked for.
    """
    return html.live_feed(_request(context), topic, limit=limit, insert=insert, label=label)


@register.simple_block_tag(takes_context=True)
def livefeed_value(context: Any, content: str, topic: str, *, key: Any = None, cursor: str = "") -> SafeString:
    """Keep a value of any markup current: ``{% livefeed_value "build:42" %}<b data-field="percent"></b>%{% end… %}``.

    It shows the topic's newest event or, with ``key``, that object of a feed's topic. A page that reads its own data
    hands in the ``cursor`` that it took before.
    """
    return html.live_value(_request(context), topic, content, key=key, cursor=cursor)


@register.simple_tag(takes_context=True)
def livefeed_count(context: Any, topic: str) -> SafeString:
    """Show how many items a topic has, and keep count: ``{% livefeed_count "news.article" %} articles``."""
    return html.live_counter(_request(context), topic)


@register.simple_block_tag(takes_context=True)
def livefeed_toasts(context: Any, content: str, topic: str, **options: Any) -> SafeString:
    """Show each event of a topic as a message for a while: ``{% livefeed_toasts "notice:7" seconds=5 %}…{% end… %}``.

    What stands inside is the template of a message; where nothing does, the text of the event is shown. Takes
    ``limit``, ``seconds``, ``label`` and ``cursor``.
    """
    return html.live_toasts(_request(context), topic, content, **options)


@register.simple_tag(takes_context=True)
def livefeed_cursor(context: Any, *topics: str) -> str:
    """Write the cursor of topics. Place it before anything on the page reads the data."""
    return links.cursor_for(page_viewer(_request(context)), topics)


@register.simple_tag(takes_context=True)
def livefeed_url(context: Any, *topics: str) -> str:
    """Write the URL of a stream of topics, for a client of your own: ``{% livefeed_url "build:42" "news.article" %}``.

    A topic that no feed owns is opened by it to whoever the page is for, and to nobody else: its name is signed. Of a
    feed's topics those are left out that its rule does not open; where nothing is left the URL is "". It begins at the
    cursor of now, so place it before anything on the page reads the data.
    """
    return links.signed_url(_request(context), topics)


def _request(context: Any) -> HttpRequest:
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured(
            "The livefeed tags need the request in the template's context, to know who is looking. Render with "
            'render(request, …) and "django.template.context_processors.request" in the TEMPLATES setting.'
        )
    return request  # type: ignore[no-any-return]
