"""No gap between a page and its stream: whatever is written from the moment the cursor was taken is replayed.

Written between the cursor and the items it is shown and comes again; between the items and the connection it is
replayed; after that it is live. On a topic's very first event as on any other.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.template import RequestContext, Template
from django.test import AsyncClient, RequestFactory

from livefeed import links, snapshots
from livefeed.roster import Roster
from livefeed.testing import EventStreamClient, open_stream
from tests.testapp.models import Article

pytest_plugins = ["tests.reading_fixtures"]

ARTICLES = "testapp.article"
OWN_PAGE = """{% load livefeed %}<main data-cursor="{% livefeed_cursor "testapp.article" %}">
{% for article in articles %}<p>{{ article.title }}</p>{% endfor %}</main>"""

Page = Callable[[AsyncClient], Awaitable[str]]


async def with_the_tag(client: AsyncClient) -> str:
    return (await client.get("/page/", {"topic": ARTICLES})).text


async def of_ones_own(client: AsyncClient) -> str:
    def render() -> str:
        request = RequestFactory().get("/")
        request.user = AnonymousUser()
        return Template(OWN_PAGE).render(RequestContext(request, {"articles": Article.objects.all()}))

    return await sync_to_async(render)()


async def snapshot_after_a_reset(client: AsyncClient) -> str:
    async with open_stream(ARTICLES, cursor="garbage") as stream:
        await stream.next()
        assert (await stream.next()).type == "livefeed-reset"
    return (await client.get("/livefeed/", {"topic": ARTICLES}, headers={"accept": "text/html"})).text


@pytest.fixture
def in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody saves an article as soon as a page has taken its cursor for the first time."""
    taken = links.cursor

    def cursor_and_then_a_writer(*topics: str) -> str:
        found = taken(*topics)
        Article.objects.get_or_create(title="In between")
        return found

    monkeypatch.setattr(links, "cursor", cursor_and_then_a_writer)
    monkeypatch.setattr(snapshots, "cursor", cursor_and_then_a_writer)


async def titles(stream: EventStreamClient, last: str) -> list[str]:
    found: list[str] = []
    while last not in found:
        found.append((await stream.next()).json["title"])
    return found


@pytest.mark.parametrize("page", [with_the_tag, of_ones_own, snapshot_after_a_reset])
@pytest.mark.parametrize("earlier", [0, 3], ids=["the-first-event", "a-later-event"])
async def test_what_is_written_from_the_cursor_on_is_replayed_and_then_goes_over_into_what_happens(
    roster: Roster, async_client: AsyncClient, in_between: Any, page: Page, earlier: int
) -> None:
    for number in range(earlier):
        await Article.objects.acreate(title=f"Earlier {number}")
    text = await page(async_client)
    assert "In between" in text
    assert text.count("Earlier") >= earlier
    await Article.objects.acreate(title="Before the connection")
    match = re.search(r'cursor="([^"]+)"', text)
    assert match is not None
    async with open_stream(ARTICLES, cursor=match[1]) as stream:
        assert (await stream.next()).json["resumed"] is True
        await Article.objects.acreate(title="Live")
        assert await titles(stream, "Live") == ["In between", "Before the connection", "Live"]
