"""A rolling restart behind nginx, as a deployment does it: no reader misses anything, or sees it twice.

Static files are as in production too: collected, under names with a hash, served by nginx and not by Django.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.e2e.servers import Nginx, Server, holders, manage, nginx_site, site_env
from tests.e2e.staged_page import until
from tests.e2e.watched import Watcher
from tests.processes import poll

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = [pytest.mark.browser, pytest.mark.needs("nginx")]

LIMIT = 30.0
TOPIC = "news.article"
FOLLOW = """async (topic) => {
  const { LiveEventSource } = await import(document.querySelector('script[src*="livefeed/livefeed"]').src);
  const viewer = document.querySelector('live-feed').getAttribute('viewer');
  window.told = [];
  window.states = [];
  const source = (window.source = new LiveEventSource(`/livefeed/?${new URLSearchParams({ topic, viewer })}`));
  source.addEventListener('tick', (event) => told.push(JSON.parse(event.data).n));
  source.addEventListener('livefeed-reset', (event) => told.push(event.data));
  source.addEventListener('state', (event) => states.push(event.detail.state));
}"""


class Site(NamedTuple):
    nginx: Nginx
    servers: dict[str, Server]
    database_url: str

    def publish(self, n: int, by: Server) -> None:
        Watcher(by, by.url).publish(TOPIC, {"n": n}, type="tick")


@pytest.fixture
def site(sqlite_url: str, tmp_path: Path) -> Iterator[Site]:
    static = tmp_path / "static"
    manifest = {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}
    settings = {
        "LIVEFEED_LOOK_INTERVAL": 0.2,  # how soon a server sees in the history what the other one has published
        "STATIC_ROOT": str(static),
        "STORAGES": {
            "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
            "staticfiles": manifest,
        },
    }
    env = {**site_env(database_url=sqlite_url, settings=settings), "DEBUG": "0", "SECRET_KEY": "x" * 50}
    manage("collectstatic", "--no-input", env=env)
    application = "tests.e2e.refused_site:application"
    servers = {kind: Server(kind, tmp_path, env=env, application=application) for kind in ("daphne", "uvicorn")}
    text = nginx_site("site", list(servers.values()), static=static)
    with servers["daphne"], servers["uvicorn"], Nginx(tmp_path, {"site": text}) as nginx:
        yield Site(nginx, servers, sqlite_url)


@pytest.fixture
def people(browser: Browser) -> Iterator[Callable[[str], list[Page]]]:
    """Return `open(url)`: one more person, with two tabs."""
    contexts: list[BrowserContext] = []

    def open_tabs(url: str) -> list[Page]:
        context = browser.new_context()
        contexts.append(context)
        pages = [context.new_page(), context.new_page()]
        for page in pages:
            page.goto(url)
        return pages

    yield open_tabs
    for context in contexts:
        context.close()


def test_a_rolling_restart_loses_nothing_and_doubles_nothing(site: Site, people: Callable[[str], list[Page]]) -> None:
    tabs = [page for _ in range(2) for page in people(site.nginx.url("site"))]
    for page in tabs:
        page.evaluate(FOLLOW, TOPIC)
        until(page, "source.state === 'open'")
    poll(lambda: len(holders(site.database_url)) == 2, limit=LIMIT, what="each person has one connection")
    number = 0
    for kind, other in (("daphne", "uvicorn"), ("uvicorn", "daphne")):
        site.publish(number + 1, site.servers[kind])
        site.servers[kind].stop()
        site.publish(number + 2, site.servers[other])
        site.servers[kind].start()
        site.publish(number + 3, site.servers[kind])
        number += 3
        for page in tabs:
            until(page, "told.length >= argument", number)
    for page in tabs:
        assert page.evaluate("told") == [1, 2, 3, 4, 5, 6]
        assert page.evaluate("states").count("waiting") >= 1
