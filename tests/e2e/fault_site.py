"""The site under attack: four servers of two kinds, a private Redis, writers, and what is done to them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg
import redis

from tests.e2e.fault_proxy import Proxy
from tests.e2e.fault_writer import LAST_WORD, UNNUMBERED, UNTOLD
from tests.e2e.servers import Server, site_env
from tests.processes import ROOT, Process, environment
from tests.services import RedisServer

SERVERS = ("daphne", "uvicorn", "daphne", "uvicorn")
WRITERS = 6
WRITER_LIMIT = 60.0
#: Seconds in which a server must obey SIGTERM: far more than LIVEFEED_DRAIN_SECONDS, for the machine may be busy.
DEPLOY_LIMIT = 60.0
LAYERS = {
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "classic": "channels_redis.core.RedisChannelLayer",
}
#: So that leases, keep-alives and send timeouts run out within a fault, and tails are too short for who was away long.
SETTINGS: Mapping[str, object] = {
    "DEBUG": False,
    "LIVEFEED_KEEPALIVE": 2.0,
    "LIVEFEED_LEASE_SECONDS": 6.0,
    "LIVEFEED_RECHECK_INTERVAL": 5.0,
    "LIVEFEED_SEND_TIMEOUT": 10.0,
    "LIVEFEED_TAIL_BYTES": 256 * 1024,
    "LIVEFEED_RETENTION_EVENTS": 0,
    "LIVEFEED_MAX_CONNECTIONS_PER_USER": 0,
    "LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS": 0,
    "LIVEFEED_CONNECTS_PER_MINUTE": 0,
}


def fault_env(database_url: str, redis_url: str, layer: str) -> dict[str, str]:
    """Return the environment of servers and writers, with one of LAYERS."""
    layers = {"default": {"BACKEND": LAYERS[layer], "CONFIG": {"hosts": [redis_url]}}}
    return site_env(database_url=database_url, redis_url=redis_url, settings={**SETTINGS, "CHANNEL_LAYERS": layers})


class WriterProcess:
    """A running `tests.e2e.fault_writer`."""

    _count = 0

    def __init__(self, env: Mapping[str, str], directory: Path, rate: float) -> None:
        WriterProcess._count += 1
        self.number = WriterProcess._count
        self.log_path = directory / f"writer-{self.number}.log"
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.fault_writer", str(self.number), str(rate)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(env),
                cwd=ROOT,
            )

    def wait_until_ready(self) -> None:
        assert self.popen.stdout is not None
        if self.popen.stdout.readline() != b"ready\n":
            raise RuntimeError(f"Writer {self.number} did not begin.\n{self.log_path.read_text()}")

    def order(self, word: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{word}\n".encode())
        self.popen.stdin.flush()

    def end(self) -> None:
        """Let the writer finish what it is at; one that fails is an error."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        self.wait_for(0)

    def wait_for(self, code: int) -> None:
        found = self.popen.wait(WRITER_LIMIT)
        if found != code:
            raise RuntimeError(f"Writer {self.number} ended with {found}.\n{self.log_path.read_text()}")

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()


Victim = TypeVar("Victim", Server, WriterProcess)


class Site:
    """The processes, and the faults as methods: each returns in words what it did, when everything is up again."""

    def __init__(self, database_url: str, directory: Path, *, layer: str, rate: float, rng: random.Random) -> None:
        self.database_url = database_url
        self.directory = directory
        self.redis = RedisServer(directory)
        self.env = fault_env(database_url, self.redis.url, layer)
        self.servers = [Server(kind, directory, env=self.env) for kind in SERVERS]
        self.proxy = Proxy([server.port for server in self.servers])
        self.writers: list[WriterProcess] = []
        self.trouble: list[str] = []
        self.kinds: dict[str, Callable[[], Awaitable[str]]] = {
            "server killed": self.kill_server,
            "server stopped": self.stop_server,
            "server deployed": self.deploy_server,
            "redis killed": self.kill_redis,
            "redis flushed": self.flush_redis,
            "redis stopped": self.stop_redis,
            "writer killed": self.kill_writer,
            "writer died before numbering": partial(self.let_writer_die, UNNUMBERED),
            "writer died before telling": partial(self.let_writer_die, UNTOLD),
            "database connections cut": self.cut_database,
            "connections cut": self.cut_connections,
            "connections silent": self.silence_connections,
            "connections delayed": self.delay_connections,
        }
        self._rate = rate
        self._rng = rng
        self._busy: set[Server | WriterProcess] = set()
        self._redis_lock = asyncio.Lock()

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start Redis, the servers and the proxy; not yet the writers."""
        await _start(self.redis)
        await asyncio.gather(*map(_start, self.servers))

    async def start_writers(self) -> None:
        self.writers = list(await asyncio.gather(*(self.new_writer() for _ in range(WRITERS))))

    async def end_writers(self) -> None:
        for writer in self.writers:
            await asyncio.to_thread(writer.end)

    async def last_word(self) -> None:
        """Let one more event be published on every topic."""
        writer = await self.new_writer()
        self.writers.append(writer)
        writer.order(LAST_WORD)
        await asyncio.to_thread(writer.wait_for, 0)

    def close(self) -> None:
        """End every process."""
        for writer in self.writers:
            writer.close()
        for process in (*self.servers, self.redis):
            process.stop()

    async def new_writer(self) -> WriterProcess:
        writer = WriterProcess(self.env, self.directory, self._rate / WRITERS)
        try:
            await asyncio.to_thread(writer.wait_until_ready)
        except BaseException:
            writer.close()
            raise
        return writer

    def logged(self) -> Counter[str]:
        """Return the exceptions that servers logged, each by its last line, with how often."""
        found: Counter[str] = Counter()
        for server in self.servers:
            found.update(_exceptions(server.log()))
        return found

    # -- servers --------------------------------------------------------------------------------------------------

    async def kill_server(self) -> str:
        async with self._one_of(self.servers) as server:
            server.kill()
            await _start(server)
        return server.name

    async def stop_server(self) -> str:
        async with self._one_of(self.servers) as server:
            seconds = await self._stopped(server)
        return f"{server.name}, {seconds:.1f} s"

    async def deploy_server(self) -> str:
        async with self._one_of(self.servers) as server:
            server.terminate()
            try:
                await asyncio.to_thread(server.wait, DEPLOY_LIMIT)
            except subprocess.TimeoutExpired:
                self.trouble.append(f"{server.name} did not end within {DEPLOY_LIMIT:g} s of SIGTERM")
                server.kill()
            await _start(server)
        return server.name

    # -- Redis and the database -----------------------------------------------------------------------------------

    async def kill_redis(self) -> str:
        async with self._redis_lock:
            seconds = self._rng.uniform(0, 3)
            self.redis.kill()
            await asyncio.sleep(seconds)
            await _start(self.redis)
        return f"away for {seconds:.1f} s"

    async def flush_redis(self) -> str:
        async with self._redis_lock:
            await asyncio.to_thread(self._flush)
        return ""

    def _flush(self) -> None:
        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()

    async def stop_redis(self) -> str:
        async with self._redis_lock:
            seconds = await self._stopped(self.redis)
        return f"{seconds:.1f} s"

    async def cut_database(self) -> str:
        count = await asyncio.to_thread(self._terminate_backends)
        return f"{count} connections"

    def _terminate_backends(self) -> int:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        return int(row[0]) if row else 0

    # -- writers --------------------------------------------------------------------------------------------------

    async def kill_writer(self) -> str:
        async with self._one_of(self.writers) as writer:
            writer.popen.kill()
            await self._replace(writer)
        return f"writer {writer.number}"

    async def let_writer_die(self, moment: str) -> str:
        async with self._one_of(self.writers) as writer:
            writer.order(moment)
            await self._replace(writer)
        return f"writer {writer.number}"

    async def _replace(self, writer: WriterProcess) -> None:
        await asyncio.to_thread(writer.wait_for, -signal.SIGKILL)
        writer.close()
        self.writers[self.writers.index(writer)] = await self.new_writer()

    # -- the network ----------------------------------------------------------------------------------------------

    async def cut_connections(self) -> str:
        links = self.proxy.some(self._rng.uniform(0.05, 0.5), self._rng)
        for link in links:
            link.cut()
        return f"{len(links)} of them"

    async def silence_connections(self) -> str:
        links = self.proxy.some(self._rng.uniform(0.05, 0.3), self._rng)
        for link in links:
            link.silence(self._rng.uniform(8, 20))
        return f"{len(links)} of them"

    async def delay_connections(self) -> str:
        links = self.proxy.some(self._rng.uniform(0.1, 0.5), self._rng)
        for link in links:
            link.delay(self._rng.uniform(0.2, 6))
        return f"{len(links)} of them"

    # -- how ------------------------------------------------------------------------------------------------------

    async def _stopped(self, process: Process) -> float:
        """Stop a process and let it go on after some seconds, short or long; return how many."""
        seconds = self._rng.choice([0.5, 3.0, 7.0]) * self._rng.uniform(0.5, 1)
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.killpg(process.pid, signal.SIGCONT)
        return seconds

    @asynccontextmanager
    async def _one_of(self, group: Sequence[Victim]) -> AsyncIterator[Victim]:
        """Choose one that nothing happens to at the moment; there are more of them than faults at a time."""
        victim = self._rng.choice([member for member in group if member not in self._busy])
        self._busy.add(victim)
        try:
            yield victim
        finally:
            self._busy.discard(victim)


async def _start(process: Process) -> None:
    await asyncio.to_thread(process.start)


def _exceptions(log: str) -> list[str]:
    """Return the last lines of the tracebacks in a log: the first line after each that is not indented."""
    found, inside = [], False
    for line in log.splitlines():
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line[:1].strip():
            found.append(line[:200])
            inside = False
    return found
