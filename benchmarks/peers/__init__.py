"""Who is measured: each peer is a command, a request that opens its stream, and a way to publish.

Those in Python and JavaScript are written as their own documentation shows it. What is missing on the machine is left
out, and the report says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

from benchmarks.environment import NCHAN
from benchmarks.places import BENCHMARKS, BIN, NODE, SCRATCH, python
from benchmarks.processes import Pinned, free_port
from benchmarks.services import Services
from benchmarks.site.prepare import SESSION
from tests.processes import accepts, run

DJANGO = {"DJANGO_SETTINGS_MODULE": "benchmarks.site.settings"}
#: Connections that the kernel holds for a server until it takes them: thousands come at once (docs/deploying.md).
BACKLOG = ["--backlog", "8192"]
ENDPOINT = "tcp:port={port}:interface=0.0.0.0:backlog=8192"
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "benchmarks.site.asgi:application", "--no-access-log", "--host", "0.0.0.0", *BACKLOG],
    "daphne": ["-m", "daphne", "benchmarks.site.asgi:application", "--access-log", "/dev/null", "-e", ENDPOINT],
}


@dataclass(frozen=True)
class Peer:
    """A server that streams events. ``{port}`` in its command is where it listens."""

    name: str
    command: tuple[str, ...]
    stream: str = "/stream"
    publish: str = "/publish"
    env: Mapping[str, str] = field(default_factory=dict)
    #: Published by a process of its own, through the database and Redis, and not by a request to the server.
    external: bool = False
    #: A Django site: it needs a database, and can have users who are signed in.
    site: bool = False
    lacks: str = ""

    def request(self, *, signed_in: bool = False, headers: Mapping[str, str] | None = None, query: str = "") -> str:
        """Return the request that opens a stream; ``%d`` in it is the reader's number."""
        path = self.stream + (("&" if "?" in self.stream else "?") + query if query else "")
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream"]
        if signed_in:
            lines.append(f"Cookie: sessionid={SESSION.format('%d')}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return "\r\n".join([*lines, "", ""])

    @contextmanager
    def serve(self, services: Services, *, users: int = 0, env: Mapping[str, str] | None = None) -> Iterator[Server]:
        """Run it, with a fresh database where it needs one, until the block ends."""
        environment = {**DJANGO, **self.env, **(env or {})}
        if self.site:
            environment.update(prepared(services, environment, users))
        port = free_port()
        words = [word.format(port=port, directory=SCRATCH) for word in self.command]
        with Pinned(self.name, words, ready=lambda: accepts(port), env=environment, cwd=BENCHMARKS.parent) as process:
            yield Server(self, process, port, environment)


@dataclass(frozen=True)
class Server:
    """A peer that runs."""

    peer: Peer
    process: Pinned
    port: int
    env: Mapping[str, str]

    @property
    def database(self) -> str:
        """The name of its database."""
        return self.env["BENCH_DATABASE_NAME"]


def prepared(services: Services, env: Mapping[str, str], users: int) -> dict[str, str]:
    """Return the environment that names a database with the site's tables, and users with sessions: a fresh copy."""
    template = _template(services, env["BENCH_KIND"], env.get("BENCH_DATABASE") == "sqlite", users)
    if isinstance(template, str):
        return {**services.env(), "BENCH_DATABASE_NAME": fresh_database(services, template)}
    path = SCRATCH / "site.sqlite3"
    for old in SCRATCH.glob("site.sqlite3*"):
        old.unlink()
    shutil.copy(template, path)
    return services.env(str(path))


@cache
def _template(services: Services, kind: str, is_sqlite: bool, users: int) -> str | Path:
    """Make such a database once; return its name, or the path of its file."""
    path = SCRATCH / f"{kind}-{users}.sqlite3"
    path.unlink(missing_ok=True)
    name = "" if is_sqlite else fresh_database(services)
    made = services.env(str(path)) if is_sqlite else {**services.env(), "BENCH_DATABASE_NAME": name}
    run([python(), "-m", "benchmarks.site.prepare", str(users)], env={**DJANGO, "BENCH_KIND": kind, **made})
    return name or path


def fresh_database(services: Services, template: str = "template1") -> str:
    """Make a copy of a database; return its name."""
    name = f"bench{next(_numbers)}"
    services.sql("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


_numbers = count(1)


def django(kind: str, server: str, name: str, stream: str, **env: str) -> Peer:
    """Return the site as a peer."""
    external = env.get("BENCH_LAYER") in {"redis", "pubsub"} or env.get("BENCH_EXTERNAL") == "1"
    return Peer(
        f"{name}, {server}",
        (python(), *SERVERS[server], *(["--port", "{port}"] if server == "uvicorn" else [])),
        stream=stream,
        env={"BENCH_KIND": kind, **env},
        external=external and kind != "member",
        site=True,
    )


def livefeed(server: str = "uvicorn", **env: str) -> Peer:
    """Return livefeed: events come from another process, through PostgreSQL and Redis' pub/sub."""
    return django("livefeed", server, "livefeed", "/livefeed/?topic=news", **{"BENCH_LAYER": "pubsub", **env})


def livefeed_inside(server: str = "uvicorn") -> Peer:
    """Return livefeed in one process: events come from a request to the server, and the layer is in memory."""
    return django(
        "livefeed",
        server,
        "livefeed in one process",
        "/livefeed/?topic=news",
        BENCH_LAYER="memory",
        BENCH_DATABASE="sqlite",
    )


def eventstream(server: str = "uvicorn", **env: str) -> Peer:
    """Return django-eventstream: events come from another process, through Redis, its way with several processes."""
    return django("eventstream", server, "django-eventstream", "/events/", **{"BENCH_EXTERNAL": "1", **env})


def eventstream_inside(server: str = "uvicorn") -> Peer:
    """Return django-eventstream in one process: events come from a request to the server."""
    return django("eventstream", server, "django-eventstream in one process", "/events/", BENCH_DATABASE="sqlite")


def member(layer: str, server: str = "uvicorn") -> Peer:
    """Return Channels with a group member per stream."""
    return django(
        "member", server, f"a Channels member each, {layer}", "/stream/", BENCH_LAYER=layer, BENCH_DATABASE="sqlite"
    )


def node(name: str, script: str) -> Peer:
    """Return a peer in JavaScript."""
    lacks = "" if (NODE / "node_modules").exists() else "Node.js or npm is not installed"
    command = ("node", str(BENCHMARKS / "peers" / script), "{port}")
    return Peer(name, command, env={"NODE_PATH": str(NODE / "node_modules"), "NODE_ENV": "production"}, lacks=lacks)


class Nchan(Peer):
    """nginx with nchan; its configuration is written when it starts."""

    @contextmanager
    def serve(self, services: Services, *, users: int = 0, env: Mapping[str, str] | None = None) -> Iterator[Server]:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        port = free_port()
        text = (BENCHMARKS / "peers" / "nchan.conf").read_text()
        config = SCRATCH / "nchan.conf"
        config.write_text(text.replace("{directory}", str(SCRATCH)).replace("{port}", str(port)))
        command = [*self.command, "-c", str(config), "-p", str(SCRATCH)]
        with Pinned(self.name, command, ready=lambda: accepts(port)) as process:
            yield Server(self, process, port, {})


C_WRITER = Peer("C writer", (str(BIN / "writer"), "{port}"))
UVLOOP = Peer("uvloop writer", (python(), str(BENCHMARKS / "peers" / "uvloop_writer.py"), "{port}"))
STARLETTE = Peer(
    "sse-starlette",
    (
        *(python(), "-m", "uvicorn", "benchmarks.peers.starlette_app:application"),
        *("--no-access-log", "--port", "{port}", *BACKLOG),
    ),
)
EXPRESS = node("Express", "express.cjs")
BETTER_SSE = node("better-sse", "better_sse.cjs")
NCHAN_PEER = Nchan(
    "nginx with nchan",
    (shutil.which("nginx") or "/usr/sbin/nginx", "-e", "stderr"),
    lacks="" if NCHAN.exists() else "nginx's nchan is not installed",
)
