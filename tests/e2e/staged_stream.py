"""One event stream as the staged site serves it, block by block under the test's command, and the text of blocks."""

from __future__ import annotations

import json
import queue
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from livefeed.cursors import Position, entry, join

if TYPE_CHECKING:
    from tests.e2e.staged_site import Site

CUT = object()
LOOK = 0.02  # seconds between two looks whether the browser has left
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # SO_LINGER without time: close() sends an RST
EPOCH = "epoch0"
TOPIC = "news.article"


def cursor(seq: int, *topics: str, epoch: str = EPOCH) -> str:
    """Return the cursor of these topics (TOPIC) that all stand behind one `seq`, as the server writes it."""
    return join(entry(topic, Position(epoch, seq)) for topic in topics or (TOPIC,))


def block(type: str, data: object, id: str | None = None, topic: str | None = None) -> str:
    lines = [f"id: {id}"] * (id is not None) + [f"event: {type}"] + [f"topic: {topic}"] * (topic is not None)
    return "\n".join([*lines, f"data: {json.dumps(data)}", "", ""])


def created(key: int, title: str, id: str | None = None, topic: str | None = None, **data: object) -> str:
    return block("created", {"pk": key, "title": title, "url": f"/a/{key}", **data}, id, topic)


class Stream:
    """One event stream that the browser has open."""

    def __init__(self, handler: BaseHTTPRequestHandler, site: Site) -> None:
        self.path = handler.path
        query = parse_qs(urlsplit(handler.path).query)
        self.topics = query.get("topic", [])
        self.client = query.get("client", [""])[0]
        self.headers = handler.headers
        self.cursor = handler.headers.get("Last-Event-ID", "") or query.get("since", [""])[0]
        self.ended = threading.Event()
        self._site = site
        self._texts: queue.Queue[object] = queue.Queue()
        self._handler = handler

    @property
    def names(self) -> list[str]:
        """The topics by their own names, without what signs them."""
        return [topic.split("~")[0] for topic in self.topics]

    def open(self, **detail: object) -> Stream:
        """Send what the server begins with; `detail` is laid over what `livefeed-open` says."""
        at = self.cursor or cursor(0, *self.names)
        answer = {"topics": self.names, "refused": [], "cursor": at, "head": at, "resumed": True, "keepalive": 15}
        if viewer := self._site.viewer(self):
            answer["viewer"] = viewer
        return self.send("retry: 500\n" + block("livefeed-open", {**answer, **detail}, at))

    def send(self, text: str) -> Stream:
        self._texts.put(text)
        return self

    def end(self) -> None:
        """End the response as a server does that is done."""
        self._texts.put(None)

    def cut(self) -> None:
        """Break the connection with a reset."""
        self._texts.put(CUT)

    def take_over(self, earlier: Stream) -> None:
        """End what the same client had open before, as the server does with a lease that has moved."""
        if earlier.client and earlier.client == self.client and not earlier.ended.is_set():
            earlier.send(block("livefeed-closing", {"reason": "taken-over"})).end()

    def serve(self) -> None:
        try:
            while not self._gone():
                try:
                    text = self._texts.get(timeout=LOOK)
                except queue.Empty:
                    continue
                if text is None:
                    return
                if text is CUT:
                    self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
                if not self._site.held:
                    self._handler.wfile.write(str(text).encode())
        except ConnectionError:
            pass
        finally:
            self.ended.set()

    def _gone(self) -> bool:
        connection = self._handler.connection
        return bool(select.select([connection], [], [], 0)[0]) and not connection.recv(1, socket.MSG_PEEK)
