"""Who is measured: each peer is a command, a request that opens its stream, and a way to publish.

Those in Python and JavaScript are written as their own documentation shows it. What is missing on the machine is left
out, and the report says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.environment import NCHAN
from benchmarks.places import BENCHMARKS, BIN, NODE, SCRATCH, python
from benchmarks.processes import Pinned, free_port
from benchmarks.services import Services
from benchmarks.site.prepare import SESSION
from tests.processes import accepts, run

DJANGO = {"DJANGO_SETTINGS_MODULE": "benchmarks.site.settings"}
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "benchmarks.site.asgi:application", "--no-access-log", "--host", "0.0.0.0"],
    "daphne": ["-m", "daphne", "benchmarks.site.asgi:application", "--access-log", "/dev/null", "-b", "0.0.0.0"],
}
PORT = {"uvicorn": "--port", "daphne": "-p"}


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
    """Make a database with the site's tables, and users with sessions; return the environment that names it."""
    if env.get("BENCH_DATABASE") == "sqlite":
        path = SCRATCH / "site.sqlite3"
        for old in SCRATCH.glob("site.sqlite3*"):
            old.unlink()
        made = services.env(str(path))
    else:
        made = {**services.env(), "BENCH_DATABASE_NAME": fresh_database(services)}
    run([python(), "-m", "benchmarks.site.prepare", str(users)], env={**env, **made})
    return made


def fresh_database(services: Services) -> str:
    """Make an empty database; return its name."""
    name = f"bench{next(_numbers)}"
    script = (
        "import psycopg, sys; psycopg.connect(sys.argv[1], autocommit=True).execute('CREATE DATABASE ' + sys.argv[2])"
    )
    run([python(), "-c", script, f"postgres://postgres@127.0.0.1:{services.postgres}/postgres", name])
    return name


_numbers = iter(range(1, 1_000_000))


def django(kind: str, server: str, name: str, stream: str, **env: str) -> Peer:
    """Return the site as a peer."""
    external = env.get("BENCH_LAYER") in {"redis", "pubsub"} or env.get("BENCH_EXTERNAL") == "1"
    return Peer(
        f"{name}, {server}",
        (python(), *SERVERS[server], PORT[server], "{port}"),
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
    (python(), "-m", "uvicorn", "benchmarks.peers.starlette_app:application", "--no-access-log", "--port", "{port}"),
)
EXPRESS = node("Express", "express.cjs")
BETTER_SSE = node("better-sse", "better_sse.cjs")
NCHAN_PEER = Nchan(
    "nginx with nchan",
    (shutil.which("nginx") or "/usr/sbin/nginx", "-e", "stderr"),
    lacks="" if NCHAN.exists() else "nginx's nchan is not installed",
)
