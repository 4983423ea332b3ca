"""A site whose every answer is the test's: pages, the widget's files, and an endpoint that behaves, also badly.

The real server runs in the other tests; this one does what a real one does once in a year, in the moment that a test
wants it. `tests.e2e.wire.Wire` before it breaks what lies between.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from livefeed.cursors import parse_cursor
from tests.e2e.staged_page import LIMIT, WATCH
from tests.e2e.staged_stream import TOPIC, Stream, created, cursor

STATIC = Path(__file__).parents[2] / "livefeed" / "static" / "livefeed"
ENDING = 2.0  # seconds that the news of a closed socket may take
STRICT = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'"


@dataclass(frozen=True)
class Answer:
    """What a request for a stream gets instead of a stream. Status 0: the connection is closed without a word."""

    status: int
    kind: str = "application/problem+json"
    text: str = "{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"


DROPPED = Answer(0)
NO_CONTENT = Answer(204, text="")
LOGIN_REDIRECT = Answer(302, "text/html", "", {"Location": "/login/"})
WRONG_TYPE = Answer(200, "text/html", "<p>Welcome to the hotel's network.</p>")


def retry_after(status: int, when: str) -> Answer:
    return Answer(status, headers={"Retry-After": when})


class Site(ThreadingHTTPServer):
    """Pages, the widget's files, and an endpoint under the test's command."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.pages: dict[str, str] = {}
        self.policy = STRICT
        self.page_headers: dict[str, str] = {}
        self.static_headers: dict[str, str] = {}
        self.answers: list[int | Answer] = []  # for the next requests for a stream; 200 is a stream
        self.refuse: Callable[[BaseHTTPRequestHandler], int | Answer | None] = lambda handler: None
        self.endpoints: dict[str, Callable[[Handler], None]] = {}  # what else there is, by its path
        self.viewer: Callable[[Stream], str] = lambda stream: ""  # the digest of who the stream's client is taken for
        self.automatic = False  # whether streams open by themselves, and begin with what was published since
        self.crowded = False  # whether several clients are meant to be here, so that nobody waits for one to go
        self.held: Literal["", "headers", "body"] = ""  # what a proxy on the way keeps of streams, for ever
        self.snapshot = ""
        self.snapshot_requests: list[BaseHTTPRequestHandler] = []
        self.snapshot_may_leave = threading.Event()
        self.snapshot_may_leave.set()
        self.json_pages: list[dict[str, Any]] = []  # the next pages of history; after them there is nothing new
        self.json_requests: list[str] = []  # the cursors that pages were asked for with
        self.asked = 0  # requests for a stream, however they were answered
        self.most_open = 0
        self._streams: list[Stream] = []
        self._published: list[str] = []
        self._changed = threading.Condition(threading.RLock())

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its sockets is no error here."""

    def connected(self, stream: Stream) -> None:
        for earlier in self.open_streams:
            stream.take_over(earlier)
        if not self.crowded:
            for earlier in self.open_streams:
                earlier.ended.wait(ENDING)
        with self._changed:
            self._streams.append(stream)
            self.most_open = max(self.most_open, len({s.client or id(s) for s in self.open_streams}))
            self._changed.notify_all()
        if self.automatic:
            with self._changed:
                stream.open(head=cursor(len(self._published)))
                at = parse_cursor(stream.cursor).positions(TOPIC) if stream.cursor else []
                for seq in range(at[0].seq + 1 if at else 1, len(self._published) + 1):
                    stream.send(created(seq, self._published[seq - 1], cursor(seq)))

    def publish(self, title: str) -> None:
        """Tell all streams of an article, and those that come later from behind it; its key is its number (from 1)."""
        with self._changed:
            self._published.append(title)
            seq = len(self._published)
            for stream in self.open_streams:
                stream.send(created(seq, title, cursor(seq)))

    def note(self, change: Callable[[], None]) -> None:
        """Change what tests wait for."""
        with self._changed:
            change()
            self._changed.notify_all()

    def next_page(self, topics: list[str], since: str) -> dict[str, Any]:
        """Return a page of history: the next that the test has laid out, else one with nothing new."""
        page = {"topics": topics, "events": [], "cursor": since, "more": False, "resets": [], "refused": []}
        if self.json_pages:
            page |= self.json_pages.pop(0)
        self.note(lambda: self.json_requests.append(since))
        return {"unnamed": [], **page}

    @property
    def streams(self) -> list[Stream]:
        return list(self._streams)

    @property
    def open_streams(self) -> list[Stream]:
        return [stream for stream in self._streams if not stream.ended.is_set()]

    def stream(self, number: int = 1) -> Stream:
        """Wait for the stream with this number (from 1) since the beginning."""
        self.wait_until(lambda: len(self._streams) >= number, f"stream {number}")
        return self._streams[number - 1]

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, LIMIT), f"{what} did not come; {len(self._streams)} streams did"

    def close(self) -> None:
        for stream in self.streams:
            stream.end()
        self.snapshot_may_leave.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/livefeed/":
            self._feed()
        elif path == "/static/watch.js":
            self.answer(Answer(200, "text/javascript", WATCH))
        elif path.startswith("/static/"):
            kind = "text/css" if path.endswith("css") else "text/javascript"
            text = (STATIC / path.rpartition("/")[2]).read_text()
            self.answer(Answer(200, kind, text, self.server.static_headers))
        elif path == "/login/":
            self.answer(Answer(200, "text/html", "<title>Who are you?</title>"))
        elif path in self.server.pages:
            self.answer(Answer(200, "text/html", self.server.pages[path], self.server.page_headers))
        elif path in self.server.endpoints:
            self.server.endpoints[path](self)
        else:
            self.answer(Answer(404, "text/plain", "Not here."))

    def _feed(self) -> None:
        refused = self.server.refuse(self)
        if refused is not None:
            self.answer(refused)
        elif self.headers["Accept"] == "text/html":
            self.server.note(lambda: self.server.snapshot_requests.append(self))
            self.server.snapshot_may_leave.wait(LIMIT)
            self.answer(Answer(200, "text/html", self.server.snapshot))
        elif self.headers["Accept"] == "application/json":
            self._page()
        else:
            self.server.note(self._count)
            answer = self.server.answers.pop(0) if self.server.answers else 200
            if answer == 200:
                self._stream()
            else:
                self.answer(answer)

    def _count(self) -> None:
        self.server.asked += 1

    def _page(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        since = self.headers.get("Last-Event-ID", "") or query.get("since", [""])[0]
        page = self.server.next_page([topic.split("~")[0] for topic in query.get("topic", [])], since)
        self.answer(Answer(200, "application/json", json.dumps(page)))

    def _stream(self) -> None:
        self.close_connection = True
        stream = Stream(self, self.server)
        if self.server.held != "headers":
            self._head(200, "text/event-stream", {"Connection": "close"})
        self.server.connected(stream)
        stream.serve()

    def answer(self, answer: Answer | int) -> None:
        """Answer with this, or with just a status."""
        answer = answer if isinstance(answer, Answer) else Answer(answer)
        self.close_connection = True  # a browser that kept it would use it again where a test has made it deaf
        if answer.status:
            body = answer.text.encode(answer.encoding)
            length = {} if answer.status == 204 else {"Content-Length": str(len(body))}
            self._head(
                answer.status, f"{answer.kind}; charset=utf-8", {**length, "Connection": "close", **answer.headers}
            )
            self.wfile.write(body)

    def _head(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if kind.startswith("text/html"):
            self.send_header("Content-Security-Policy", self.server.policy)
        else:
            self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The test says what matters."""


@contextmanager
def staged_site() -> Iterator[Site]:
    """Run a staged site on a free port as long as the block lasts."""
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    site.close()
    thread.join()
