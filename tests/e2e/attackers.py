"""Clients that mean harm, each a process of its own: `python -m tests.e2e.attackers NAME PORT [COUNT]`.

flood    opens COUNT streams as fast as it can, each with a made-up session, and keeps what it gets; it has begun when
         all have been asked for
garbage  sends what no client sends: broken requests, random topics and cursors, huge queries, requests that never end
deaf     opens COUNT streams and never reads a byte after the answer's head

Each prints `begun`, then a JSON object of what it met once it has done its worst, holds its connections until its
standard input is closed or LIFE seconds are over, and speaks to 127.0.0.1 only. The test's side is :class:`Attacker`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import secrets
import socket
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.processes import ROOT

LIFE = 90.0
HOST = "127.0.0.1"
TOPIC = "blog.entry"
#: Seconds that an attacker waits for an answer.
PATIENCE = 60.0
STREAM = f"GET /livefeed/?topic={TOPIC} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/event-stream\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


class Attacker:
    """One of them, as an async context manager: it has begun when the block begins, and is gone when it ends."""

    def __init__(self, name: str, port: int, count: int) -> None:
        self._command = [sys.executable, "-m", "tests.e2e.attackers", name, str(port), str(count)]
        self._process: asyncio.subprocess.Process | None = None

    async def met(self) -> dict[str, int]:
        """Wait until it has done its worst; return what it met, counted."""
        met: dict[str, int] = json.loads(await self._line())
        return met

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(LIFE):
            return await self._process.stdout.readline()

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, cwd=ROOT)
        assert await self._line() == b"begun\n"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.communicate()


# -- the process ------------------------------------------------------------------------------------------------------


class Connections:
    """The connections that an attacker holds, and what it met on all that it tried."""

    def __init__(self, port: int, address: str, window: int = 0) -> None:
        self.met: Counter[str] = Counter()
        self._window = window  # bytes that the kernel takes for a connection that nobody reads
        self._port = port
        self._address = address
        self._held: list[asyncio.StreamWriter] = []
        self._habits: set[asyncio.Task[None]] = set()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        if self._window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._window)
        sock.setblocking(False)
        sock.bind((self._address, 0))
        await asyncio.get_running_loop().sock_connect(sock, (HOST, self._port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=self._window or 1 << 16)
        self._held.append(writer)
        return reader, writer

    async def send(self, request: bytes, on_sent: Callable[[], object] = bool) -> asyncio.StreamReader | None:
        """Send something on a new connection and note what comes back; return the connection to read on."""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await self.open()
                writer.write(request)
                on_sent()
                self.met[outcome(await beginning(reader))] += 1
                return reader
        except (OSError, TimeoutError) as error:
            self.met[type(error).__name__] += 1
        return None

    def keep(self, habit: Coroutine[Any, Any, None]) -> None:
        """Have something go on in the background."""
        self._habits.add(asyncio.create_task(habit))

    def close(self) -> None:
        for writer in self._held:
            writer.transport.abort()


async def beginning(reader: asyncio.StreamReader) -> bytes:
    """Return the head of an answer with the first that follows it, or all there is."""
    answer = b""
    while data := await reader.read(4096):
        answer += data
        if answer.partition(b"\r\n\r\n")[2] or b"HTTP/1.1 204" in answer or b"Content-Length: 0" in answer:
            break
    return answer


def outcome(answer: bytes) -> str:
    """Return "stream" for an open stream, "refused" for one that was told to come back, else the status."""
    if b"livefeed-open" in answer:
        return "stream"
    if b"livefeed-refused" in answer:
        return "refused"
    found = STATUS.match(answer)
    return found[1].decode() if found else "closed"


async def flood(connections: Connections, count: int) -> None:
    sent = itertools.count(1)

    def note() -> None:
        if next(sent) == count:
            print("begun", flush=True)

    async def one(agent: str) -> None:
        request = f"{STREAM}User-Agent: {agent}\r\nCookie: sessionid={secrets.token_hex(16)}\r\n\r\n"
        if reader := await connections.send(request.encode(), note):
            connections.keep(drain(reader))

    await asyncio.gather(*(one(agent) for agent in ["Mozilla/5.0", "flood"] * (count // 2)))


async def drain(reader: asyncio.StreamReader) -> None:
    """Read on for ever, as somebody does who wants to look like a client."""
    with suppress(OSError):
        while await reader.read(1 << 20):
            pass


async def garbage(connections: Connections, count: int) -> None:
    chance = random.Random(count)
    for request in unfinished():
        _, writer = await connections.open()
        writer.write(request)
        connections.keep(trickle(writer))
    for _ in range(count):
        await connections.send(nonsense(chance))


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, so that nobody can say the connection is idle."""
    while not writer.is_closing():
        writer.write(b"a")
        await asyncio.sleep(0.5)


def unfinished() -> Iterator[bytes]:
    """Requests that never end, each cut at another place."""
    whole = STREAM.encode()
    for cut in range(1, len(whole), 2):
        yield whole[:cut]
    yield b"POST /livefeed/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhalf"


#: The most parameters in a query: more than Django reads (DATA_UPLOAD_MAX_NUMBER_FIELDS).
FIELDS = 1500
METHODS = ["PUT", "DELETE", "TRACE", "BREW", "HEAD", "OPTIONS"]


def nonsense(chance: random.Random) -> bytes:
    """Return one request that makes no sense, or almost."""
    junk = bytes(chance.choices(range(256), k=chance.randint(1, 300)))
    word = "".join(chance.choices("abz019._:-~%?&=;\\/ \t", k=chance.randint(1, 60))).replace(" ", "+")
    cursor = "".join(chance.choices("AZaz09-_.", k=chance.randint(1, 2000)))
    accept = chance.choice(["text/event-stream", "application/json", "text/html", "*/*", ";;q=x", "a/b;q=\x80"])
    end = f" HTTP/1.1\r\nHost: {HOST}\r\nAccept: {accept}\r\nConnection: close\r\n"
    requests = [
        junk + b"\r\n\r\n",
        f"GET /livefeed/?topic={word}{end}\r\n".encode("latin-1"),
        f"GET /livefeed/?topic={TOPIC}&since={cursor}{end}\r\n".encode("latin-1"),
        f"GET /livefeed/?{'topic=a&' * chance.randint(50, FIELDS)}{end}\r\n".encode("latin-1"),
        f"GET /livefeed/?topic={TOPIC}&client={word}&limit={word}&insert={word}{end}\r\n".encode("latin-1"),
        f"GET /livefeed/?topic={TOPIC}{end}Last-Event-ID: {cursor}\r\n\r\n".encode("latin-1"),
        f"GET /livefeed/?topic={TOPIC}{end}Cookie: sessionid={word}\r\nAuthorization: {word}\r\n\r\n".encode("latin-1"),
        f"{chance.choice(['PUT', 'DELETE', 'TRACE', 'BREW', 'HEAD'])} /livefeed/?topic={TOPIC}{end}\r\n".encode(
            "latin-1"
        ),
        f"GET /livefeed/?topic={TOPIC}{end}Cookie: ".encode("latin-1") + junk.replace(b"\n", b"") + b"\r\n\r\n",
    ]
    return chance.choice(requests)


async def deaf(connections: Connections, count: int) -> None:
    for _ in range(count):
        await connections.send(f"{STREAM}\r\n".encode())


WORST = {"flood": flood, "garbage": garbage, "deaf": deaf}
#: Each comes from an address of its own, so that none takes the places of another one.
ADDRESSES = {"flood": "127.0.0.1", "garbage": "127.0.0.5", "deaf": "127.0.0.6"}


async def main(name: str, port: int, count: int) -> None:
    connections = Connections(port, ADDRESSES[name], window=4096 if name == "deaf" else 0)
    over = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(over), sys.stdin)
    if name != "flood":
        print("begun", flush=True)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(LIFE):
                await WORST[name](connections, count)
                print(json.dumps(connections.met), flush=True)
                await over.read()
    finally:
        connections.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
