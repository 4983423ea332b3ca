"""What a client is told that is one too many, and how it comes back, for each kind of client there is.

The pages and commands are those of docs/clients.md, as they stand there. The server is the demo with a short pause
(:mod:`tests.e2e.refused_site`); one slow test waits as long as a real server says.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx
import pytest

from tests.e2e.servers import Server, manage, site_env
from tests.e2e.watched import Watcher
from tests.e2e.wire import Wire
from tests.processes import ROOT, environment, poll, run
from tests.test_docs import blocks

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]

DOCS = ROOT / "docs" / "clients.md"
EVENTSOURCE, CONNECT, HTMX_2, HTMX_4 = (text for _, text in blocks(DOCS, "html"))
(CURL,) = (text for _, text in blocks(DOCS, "sh"))
SCRIPTS = {
    "htmx2": {"htmx.js": "htmx2/dist/htmx.js", "sse.js": "htmx-ext-sse/dist/sse.js"},
    "htmx4": {"htmx.js": "htmx4/dist/htmx.js", "hx-sse.js": "htmx4/dist/ext/hx-sse.js"},
}

LIMIT = 60.0
#: Milliseconds that a refused client is told to wait: for browsers; and for programs, where curl alone waits a second.
BROWSERS_PAUSE, PROGRAMS_PAUSE = (600, 800), (2000, 2200)
#: How much earlier than told a client may come back: clocks are coarse, and htmx 4 adds or takes away 30 %.
COARSE, JITTERED = 0.95, 0.69


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in, and has one place."""

    user: int
    session: str

    @property
    def cookies(self) -> dict[str, str]:
        return {"sessionid": self.session}


class Site(Server):
    """The demo of :mod:`tests.e2e.refused_site`, with uvicorn; everybody who is signed in has one place."""

    def __init__(
        self,
        directory: Path,
        *,
        database_url: str,
        pause: tuple[int, int] | None,
        port: int | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        laid_over = {"LIVEFEED_MAX_CONNECTIONS_PER_USER": 1, "LIVEFEED_LOOK_INTERVAL": 0.2, **(settings or {})}
        env = site_env(database_url=database_url, settings=laid_over)
        if pause:
            env["LIVEFEED_TEST_PAUSE"] = json.dumps(pause)
        application = "tests.e2e.refused_site:application"
        super().__init__("uvicorn", directory, env=env, application=application, port=port)
        self.watcher = Watcher(self, self.url)

    def publish(self, topic: str, data: object, type: str = "message") -> None:
        self.watcher.publish(topic, data, type)

    def asked(self, person: Person) -> list[dict[str, Any]]:
        """Return what the server saw of each request for a stream that this person's clients made, but the holder."""
        theirs = [request for request in self.watcher.asked() if person.session in request.get("cookie", "")]
        return [request for request in theirs if request["user-agent"] != "holder"]

    def has_asked(self, person: Person, times: int) -> None:
        """Wait until this person's clients have asked so often."""
        poll(lambda: len(self.asked(person)) >= times, limit=LIMIT, what=f"a client asked {times} times")

    def cursor(self, topic: str) -> str:
        """Return the cursor of now."""
        headers = {"Accept": "application/json"}
        page = httpx.get(f"{self.url}/livefeed/", params={"topic": topic}, headers=headers, timeout=LIMIT)
        return str(page.raise_for_status().json()["cursor"])

    @contextmanager
    def held_place(self, person: Person) -> Iterator[None]:
        """Hold this person's one place as long as the block lasts."""
        headers = {"Accept": "text/event-stream", "User-Agent": "holder", "Cookie": f"sessionid={person.session}"}
        url = f"{self.url}/livefeed/?topic=blog.entry"
        with httpx.Client(timeout=LIMIT) as client, client.stream("GET", url, headers=headers) as response:
            chunks = response.iter_bytes()  # named, for the connection would be closed with it
            assert b"livefeed-open" in next(chunks)
            yield


def waited(requests: list[dict[str, Any]]) -> float:
    """Return the shortest time between two requests, in seconds."""
    return float(min(later["at"] - earlier["at"] for earlier, later in pairwise(requests)))


@pytest.fixture(scope="module")
def database_url(_prepared_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("refused")
    return f"sqlite:///{shutil.copy(_prepared_sqlite, directory / 'site.sqlite3')}"


def sign_in(database_url: str, number: int) -> list[Person]:
    return [
        Person(**person)
        for person in json.loads(
            run([sys.executable, "-m", "tests.e2e.sign_in", str(number)], env=site_env(database_url=database_url))
        )
    ]


@pytest.fixture(scope="module")
def people(database_url: str) -> Iterator[Person]:
    return iter(sign_in(database_url, 12))


@pytest.fixture
def person(people: Iterator[Person]) -> Person:
    """Somebody whom no other test knows."""
    return next(people)


@contextmanager
def served(directory: Path, **options: Any) -> Iterator[Site]:
    with Site(directory, **options) as site:
        yield site
        assert site.trouble() == []


@pytest.fixture(scope="module")
def site(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for browsers."""
    directory = tmp_path_factory.mktemp("for-browsers")
    with served(directory, database_url=database_url, pause=BROWSERS_PAUSE) as site:
        yield site


@pytest.fixture(scope="module")
def programs_site(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for programs."""
    directory = tmp_path_factory.mktemp("for-programs")
    with served(directory, database_url=database_url, pause=PROGRAMS_PAUSE) as site:
        yield site


def visit(window: Window, site: Site, person: Person, body: str, scripts: Mapping[str, Path] | None = None) -> Page:
    """Open a page of the site with this body; `scripts` are to be found under /static/."""
    page = window("about:blank")
    page.context.add_cookies([{"name": "sessionid", "value": person.session, "url": site.url}])
    text = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Test</title><body>{body}</body></html>'
    serve_on(page, f"{site.url}/page-of-the-test/", body=text, content_type="text/html")
    for name, path in (scripts or {}).items():
        serve_on(page, f"{site.url}/static/{name}", path=path)
    page.goto(f"{site.url}/page-of-the-test/")
    page.evaluate("window.opened = 'once'")
    return page


def serve_on(page: Page, url: str, **answer: Any) -> None:
    """Answer this URL in the server's place."""
    page.route(url, lambda route: route.fulfill(**answer))


def until(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=LIMIT * 1000)


STATUS = "document.querySelector('#status').textContent"
LIST = "document.querySelector('ol')"


@dataclass(frozen=True)
class Client:
    """A page of the documentation: what it shows while it waits, when it is live, and what it is sent."""

    body: str
    waiting: str
    live: str
    early: float = COARSE
    topic: str = "news.article"
    type: str = "created"
    data: object = None


NATIVE = Client(EVENTSOURCE, f"{STATUS}.startsWith('Not live (limit)')", f"{STATUS} === 'Live'")
OURS = Client(CONNECT, f"{STATUS} === 'limited'", f"{STATUS} === 'open'")
WAITING, LIVE = f"{LIST}.matches('.waiting')", f"!{LIST}.matches('.waiting')"
HEADLINE: Any = {"topic": "headline", "type": "message", "data": "<li>Come in</li>"}
CLIENTS = {
    "eventsource": NATIVE,
    "connect": OURS,
    "htmx2": Client(HTMX_2, WAITING, LIVE, **HEADLINE),
    "htmx4": Client(HTMX_4, WAITING, LIVE, JITTERED, **HEADLINE),
}


def comes_in_when_there_is_room(page: Page, site: Site, person: Person, client: Client, held: ExitStack) -> None:
    """See a page wait that was refused, make room, and see it come in without having been loaded again."""
    until(page, client.waiting)
    site.has_asked(person, 2)
    until(page, client.waiting)
    assert page.evaluate(f"{LIST}.innerHTML.trim()") == "", "nothing of the answer was put into the page"
    held.close()
    until(page, client.live)
    site.publish(client.topic, client.data or {"pk": 1, "title": "Come in"}, client.type)
    until(page, f"{LIST}.textContent.trim() === 'Come in'")
    assert page.evaluate("window.opened") == "once"


@pytest.mark.browser
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.needs("npm")) if kind in SCRIPTS else kind for kind in CLIENTS]
)
def test_a_page_that_is_one_too_many_waits_as_told_and_comes_in(
    kind: str, site: Site, person: Person, window: Window, request: pytest.FixtureRequest
) -> None:
    client, scripts = CLIENTS[kind], {}
    if kind in SCRIPTS:
        npm = request.getfixturevalue("npm")
        scripts = {name: npm / path for name, path in SCRIPTS[kind].items()}
    with ExitStack() as held:
        held.enter_context(site.held_place(person))
        page = visit(window, site, person, client.body, scripts)
        comes_in_when_there_is_room(page, site, person, client, held)
    assert waited(site.asked(person)) >= BROWSERS_PAUSE[0] / 1000 * client.early


@pytest.mark.browser
def test_the_widget_says_that_it_is_limited_and_comes_in(site: Site, person: Person, window: Window) -> None:
    from playwright.sync_api import expect

    page = window("about:blank")
    page.context.add_cookies([{"name": "sessionid", "value": person.session, "url": site.url}])
    feed = page.locator(".timeline live-feed")
    with site.held_place(person):
        page.goto(site.url)
        expect(feed).to_have_attribute("state", "limited", timeout=LIMIT * 1000)
        page.evaluate("window.opened = 'once'")
        site.has_asked(person, 2)
    expect(feed).to_have_attribute("state", "open", timeout=LIMIT * 1000)
    site.publish("blog.entry", {"pk": 4711, "title": "Come in"}, "created")
    expect(feed.get_by_text("Come in", exact=True)).to_have_count(1, timeout=LIMIT * 1000)
    assert page.evaluate("window.opened") == "once"
    assert waited(site.asked(person)) >= BROWSERS_PAUSE[0] / 1000 * COARSE


@pytest.mark.browser
@pytest.mark.needs("time")
def test_an_eventsource_waits_as_long_as_a_real_server_says(
    database_url: str, person: Person, window: Window, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with served(tmp_path, database_url=database_url, pause=None) as site, ExitStack() as held:
        held.enter_context(site.held_place(person))
        comes_in_when_there_is_room(visit(window, site, person, NATIVE.body), site, person, NATIVE, held)
        requests = site.asked(person)
        record_property("seconds between tries", [round(b["at"] - a["at"], 1) for a, b in pairwise(requests)])
        assert waited(requests) >= 15 * COARSE


# -- programs: told by status -----------------------------------------------------------------------------------------


def stream_url(site: Site, topic: str, since: str) -> str:
    return f"{site.url}/livefeed/?{urlencode({'topic': topic, 'since': since})}"


class Curl:
    """The documentation's curl command, by somebody who is signed in. What it prints is `text`."""

    def __init__(self, site: Site, person: Person, since: str, *more: str) -> None:
        words = shlex.split(CURL)
        assert words.pop() == "http://127.0.0.1:8000/livefeed/?topic=news.article"
        cookies = ["-b", f"sessionid={person.session}", "-sS"]
        url = stream_url(site, "news.article", since)
        self._process = subprocess.Popen([*words, *cookies, *more, url], stdout=subprocess.PIPE, env=environment())
        self._printed: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        return b"".join(self._printed).decode()

    def prints(self, text: str) -> None:
        poll(lambda: text in self.text, limit=LIMIT, what=f"curl printed {text!r}")

    def end(self) -> int:
        self._process.kill()
        self._reader.join()
        return self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            while data := os.read(output.fileno(), 65536):
                self._printed.append(data)


@contextmanager
def curl(site: Site, person: Person, since: str, *more: str) -> Iterator[Curl]:
    running = Curl(site, person, since, *more)
    try:
        yield running
    finally:
        running.end()


def is_refusal(answer: httpx.Response, status: int, detail: str) -> bool:
    """Tell whether an answer is what a program is told that is refused."""
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == str(PROGRAMS_PAUSE[0] // 1000)
    return (answer.status_code, problem["status"]) == (status, status) and detail in problem["detail"]


def ask(site: Site, person: Person) -> httpx.Response:
    """Ask for a stream as a program does that takes what it gets."""
    headers = {"Accept": "text/event-stream", "Cookie": f"sessionid={person.session}"}
    return httpx.get(f"{site.url}/livefeed/?topic=news.article", headers=headers, timeout=LIMIT)


def test_curl_is_told_by_status_and_with_retry_it_waits_as_told_and_gets_what_it_missed(
    programs_site: Site, person: Person
) -> None:
    site, since = programs_site, programs_site.cursor("news.article")
    with ExitStack() as held, ExitStack() as running:
        held.enter_context(site.held_place(person))
        assert is_refusal(ask(site, person), 429, "limit")
        process = running.enter_context(curl(site, person, since))
        site.has_asked(person, 2)
        site.publish("news.article", {"pk": 1, "title": "While curl waited"}, "created")
        held.close()
        process.prints("While curl waited")
        requests = site.asked(person)[1:]
    assert "livefeed-refused" not in process.text
    assert waited(requests) >= PROGRAMS_PAUSE[0] / 1000 * COARSE, "curl alone would wait one second"


def documented(name: str) -> Any:
    """Return what the page's Python blocks define under this name."""
    namespace: dict[str, Any] = {}
    for _, text in blocks(DOCS, "python"):
        if f"def {name}(" in text:
            exec(compile(text, DOCS.name, "exec"), namespace)
    return namespace[name]


def test_httpx_sse_is_told_by_status_and_comes_back_as_the_documentation_does_it(
    programs_site: Site, person: Person
) -> None:
    from httpx_sse import SSEError, connect_sse

    site, follow = programs_site, documented("follow")
    url = stream_url(site, "news.article", site.cursor("news.article"))
    got: list[Any] = []
    with site.held_place(person):
        with httpx.Client(cookies=person.cookies) as client, connect_sse(client, "GET", url) as source:
            source.response.read()
            assert is_refusal(source.response, 429, "limit")
            with pytest.raises(SSEError):
                next(source.iter_sse())
        thread = threading.Thread(target=lambda: got.append(next(follow(url, cookies=person.cookies))))
        thread.start()
        site.has_asked(person, 2)
        site.publish("news.article", {"pk": 2, "title": "While it waited"}, "created")
    thread.join(LIMIT)
    assert [json.loads(event.data)["title"] for event in got] == ["While it waited"]
    assert waited(site.asked(person)[1:]) >= PROGRAMS_PAUSE[0] / 1000 * COARSE


# -- no room for anybody: a server that stops, a database that is away ------------------------------------------------


@contextmanager
def stalled(site: Site, env: Mapping[str, str]) -> Iterator[None]:
    """Keep the server from ending as long as the block lasts: a stream with more to read than the wire holds."""
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", site.port))
        reader.sendall(STALLED_REQUEST)
        assert reader.recv(1)
        manage("shell", "--command", FLOOD, env=env)
        yield


STALLED_REQUEST = b"GET /livefeed/?topic=blog.entry HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
FLOOD = """\
from django.db import transaction
from livefeed import publish
with transaction.atomic():
    for n in range(50):
        publish("blog.entry", {"text": "." * 200_000})
"""


def sees_no_room_and_comes_in(
    page: Page, process: Curl, site: Site, person: Person, reason: str, make_room: Callable[[], Any]
) -> None:
    """See a page and a curl wait, make room, and see them come in."""
    until(page, f"{STATUS}.startsWith('Not live ({reason})')")
    assert is_refusal(ask(site, person), 503, reason)
    make_room()
    until(page, f"{STATUS} === 'Live'")
    site.publish("news.article", {"pk": 3, "title": "Come in"}, "created")
    until(page, f"{LIST}.textContent.trim() === 'Come in'")
    process.prints("Come in")
    assert page.evaluate("window.opened") == "once"


@pytest.mark.browser
def test_who_meets_a_server_that_stops_comes_to_the_next_one(
    database_url: str, people: Iterator[Person], window: Window, tmp_path: Path
) -> None:
    settings = {"LIVEFEED_DRAIN_SECONDS": LIMIT, "LIVEFEED_MAX_CONNECTIONS_PER_USER": 3}
    person = next(people)
    with ExitStack() as stack:
        options: dict[str, Any] = {"database_url": database_url, "pause": PROGRAMS_PAUSE, "settings": settings}
        first = Site(tmp_path, **options)
        stack.callback(first.stop)
        first.start()
        since = first.cursor("news.article")
        draining = stack.enter_context(ExitStack())
        draining.enter_context(stalled(first, first.env))
        first.terminate()
        page = visit(window, first, person, NATIVE.body)
        process = stack.enter_context(curl(first, person, since))
        first.has_asked(person, 2)

        def serve_again() -> None:
            draining.close()
            first.wait(LIMIT)
            stack.enter_context(Site(tmp_path, port=first.port, **options))

        sees_no_room_and_comes_in(page, process, first, person, "shutdown", serve_again)
        assert first.trouble() == []


@pytest.mark.browser
@pytest.mark.needs("postgres")
def test_who_comes_while_the_database_is_away_comes_in_when_it_is_back(
    demo_postgres_url: str, window: Window, tmp_path: Path
) -> None:
    database = urlsplit(demo_postgres_url)
    with Wire(database.port or 5432) as wire, ExitStack() as stack:
        host = f"{database.netloc.rpartition('@')[0]}@127.0.0.1:{wire.port}"
        options: dict[str, Any] = {"settings": {"LIVEFEED_MAX_CONNECTIONS_PER_USER": 3}, "pause": PROGRAMS_PAUSE}
        url = urlunsplit(database._replace(netloc=host))
        site = stack.enter_context(Site(tmp_path, database_url=url, **options))
        (person,) = sign_in(demo_postgres_url, 1)
        since = site.cursor("news.article")
        wire.cut()
        page = visit(window, site, person, NATIVE.body)
        process = stack.enter_context(curl(site, person, since))
        site.has_asked(person, 2)
        sees_no_room_and_comes_in(page, process, site, person, "unavailable", wire.mend)
