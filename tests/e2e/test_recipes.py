"""Every recipe of docs/recipes/ as it stands there, in Chromium, with the packages from npm: one site has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.recipes import RECIPES, Site, pinned
from tests.e2e.servers import TROUBLE
from tests.e2e.wire import Wire
from tests.test_docs import blocks

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]

in_chromium = pytest.mark.browser
with_npm = pytest.mark.needs("npm")

LIMIT = 30.0
MARKUP = "<img src=x onerror='throw 1'> & <b>"
SHOWS = """([where, texts]) => {
  const shown = Array.from(document.querySelectorAll(where), (item) => item.textContent.trim());
  return JSON.stringify(shown) === JSON.stringify(texts);
}"""
SIGN_IN = """
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from livefeed import create_token

user = get_user_model().objects.create_user("anna")
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
answer = {"session": session.session_key, "token": create_token(user, ["desk"], max_age=600)}
"""


@pytest.fixture(scope="module")
def site(npm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("recipes")) as site:
        yield site
    assert not TROUBLE.search(site.server.log())


@pytest.fixture(scope="module")
def anna(site: Site) -> dict[str, str]:
    """Somebody who is signed in: the session, and a token."""
    signed_in: dict[str, str] = site.watcher.run(SIGN_IN)
    return signed_in


@pytest.fixture
def first(site: Site) -> int:
    """The one article there is."""
    site.clear()
    return site.add("First")


def shows(page: Page, *texts: str, where: str = "#news > li") -> None:
    """Wait until the list shows just these."""
    page.wait_for_function(SHOWS, arg=[where, list(texts)], timeout=LIMIT * 1000)


def follows_the_articles(page: Page, site: Site, first: int, where: str = "#news > li") -> None:
    """See a list follow what happens to articles; it has the first already. Markup in a title stays text."""
    shows(page, "First", where=where)
    page.evaluate("window.opened = 'once'")
    second = site.add(MARKUP)
    shows(page, MARKUP, "First", where=where)
    site.change(first, "First, again")
    shows(page, MARKUP, "First, again", where=where)
    site.delete(second)
    shows(page, "First, again", where=where)
    assert page.evaluate("window.opened") == "once"


@in_chromium
@with_npm
@pytest.mark.parametrize("path", ["eventsource", "live-event-source", "htmx-2", "htmx-4", "turbo", "turbo-source"])
def test_a_page_follows_the_articles(path: str, site: Site, first: int, window: Window) -> None:
    follows_the_articles(window(f"{site.url}/{path}/"), site, first)


@in_chromium
@with_npm
def test_react_s_hook_costs_one_connection_in_strict_mode_and_in_two_tabs(
    site: Site, first: int, window: Window
) -> None:
    earlier = len(site.watcher.asked())
    page = window(f"{site.url}/react/")
    is_live = "document.querySelector('[role=status]').textContent === 'Live: 1'"
    page.wait_for_function(is_live)  # who joins while the first request is on its way begins it anew
    other = page.context.new_page()
    other.goto(f"{site.url}/react/")
    other.wait_for_function(is_live)
    follows_the_articles(page, site, first)
    shows(other, "First, again")
    assert len(site.watcher.asked()) == earlier + 1


@in_chromium
@with_npm
def test_a_page_that_turbo_brings_back_from_its_cache_gets_what_happened_meanwhile(
    site: Site, first: int, window: Window
) -> None:
    page = window(f"{site.url}/turbo/")
    shows(page, "First")
    page.evaluate("window.opened = 'once'; Turbo.visit('/turbo/?again')")
    page.wait_for_url("**/?again")
    site.add("Second")
    shows(page, "Second", "First")
    page.go_back()
    page.wait_for_url("**/turbo/")
    shows(page, "Second", "First")
    assert page.evaluate("window.opened") == "once"


@in_chromium
@with_npm
def test_alpine_hears_what_the_widget_tells(site: Site, first: int, window: Window) -> None:
    from playwright.sync_api import expect

    page = window(f"{site.url}/alpine/")
    expect(page.get_by_text("Not live")).to_be_hidden()
    follows_the_articles(page, site, first, "live-feed [data-live-list] [data-field=title]")
    expect(page.get_by_role("button", name="Seen: 3")).to_be_visible()
    assert page.locator("section > p > span").first.text_content() == "First, again"


# -- what became of Last-Event-ID after a server's bad minute ---------------------------------------------------------


def sees_a_bad_minute(page: Page, site: Site, wire: Wire) -> None:
    """Cut the stream, refuse it twice with 503, and publish meanwhile."""
    site.watcher.publish("log", "<li>1</li>")
    shows(page, "1", where="#log > li")
    site.watcher.answer(503, 503)
    wire.cut()
    site.watcher.publish("log", "<li>2</li>")
    wire.mend()


@pytest.fixture
def wire(site: Site) -> Iterator[Wire]:
    """What lies between the browser and the site."""
    with Wire(site.port) as wire:
        yield wire


def cursors(site: Site, earlier: int) -> list[str | None]:
    """Return the Last-Event-ID of each request for a stream since the earlier ones."""
    return [request.get("last-event-id") for request in site.watcher.asked()[earlier:]]


@in_chromium
@with_npm
def test_htmx_2_over_livefeed_s_client_keeps_its_place_through_503s(site: Site, wire: Wire, window: Window) -> None:
    earlier = len(site.watcher.asked())
    page = window(f"{wire.url}/live-log/")
    sees_a_bad_minute(page, site, wire)
    shows(page, "1", "2", where="#log > li")
    site.watcher.publish("log", "<li>3</li>")
    shows(page, "1", "2", "3", where="#log > li")
    began, *again = cursors(site, earlier)
    assert len(again) == 3
    assert len(set(again)) == 1
    assert again[0] not in (None, began)


@in_chromium
@with_npm
def test_htmx_2_over_an_eventsource_begins_again_after_a_503(site: Site, wire: Wire, window: Window) -> None:
    earlier = len(site.watcher.asked())
    page = window(f"{wire.url}/log/")
    sees_a_bad_minute(page, site, wire)
    shows(page, "1", "1", "2", where="#log > li")
    first, native, *anew = cursors(site, earlier)
    assert first is None
    assert native is not None
    assert set(anew) == {None}, "as the recipe says: the new EventSource knows of nothing"


@in_chromium
@with_npm
def test_htmx_4_keeps_its_place_through_503s(site: Site, wire: Wire, first: int, window: Window) -> None:
    earlier = len(site.watcher.asked())
    page = window(f"{wire.url}/htmx-4/")
    site.add("Second")
    shows(page, "Second", "First")
    site.watcher.answer(503, 503)
    wire.cut()
    site.add("Third")
    wire.mend()
    shows(page, "Third", "Second", "First")
    _, *again = cursors(site, earlier)
    assert len(again) == 3
    assert len(set(again)) == 1
    assert again[0]


@in_chromium
@with_npm
def test_the_form_of_the_log_publishes_text(site: Site, window: Window) -> None:
    page = window(f"{site.url}/log/")
    page.get_by_label("Text").fill(MARKUP)
    page.get_by_role("button").click()
    shows(page, MARKUP, where="#log > li")


# -- another origin ---------------------------------------------------------------------------------------------------


@in_chromium
@with_npm
def test_a_page_of_another_origin_follows_with_the_site_s_cookies_or_a_token(
    site: Site, anna: dict[str, str], window: Window
) -> None:
    ((_, publish),) = [block for block in blocks(RECIPES / "other-origin.md", "python") if not block[0]]
    with_cookies, with_token = window("about:blank"), window(f"{site.application.url}/livefeed.js")
    with_cookies.context.add_cookies([{"name": "sessionid", "value": anna["session"], "url": site.url}])
    with_token.evaluate("(token) => sessionStorage.setItem('token', token)", anna["token"])
    with_cookies.goto(f"{site.application.url}/")
    with_token.goto(f"{site.application.url}/token.html")
    for page in (with_cookies, with_token):
        page.wait_for_function("document.getElementById('status').textContent === 'open'", timeout=LIMIT * 1000)
    site.watcher.run(publish)
    for page in (with_cookies, with_token):
        shows(page, "Coffee is ready", where="#desk > li")


@in_chromium
@with_npm
def test_a_page_of_another_origin_without_either_is_denied(site: Site, window: Window) -> None:
    page = window(f"{site.application.url}/")
    page.wait_for_function("['denied', 'failed'].includes(document.getElementById('status').textContent)")


# -- the reader of the recipes ----------------------------------------------------------------------------------------


def test_a_recipe_may_only_name_the_version_that_is_tested() -> None:
    assert pinned("htmx.org@2.0.11")[0] == "htmx.org"
    with pytest.raises(ValueError, match=r"htmx\.org@2\.0\.0 is not what package\.json pins"):
        pinned("htmx.org@2.0.0")
