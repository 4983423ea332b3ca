"""The Redis (or Valkey) that ``LIVEFEED_REDIS`` names: connections per process, and scripts that run there in one step.

Nothing here is repeated by itself: whether something that failed took effect is for the caller to find out. So
redis-py's own retries are off, and every answer is waited for only as long as a writer may be kept waiting.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException, RedisError, ResponseError
from redis.retry import Retry

from .exceptions import HistoryUnavailable

#: Seconds that connecting may take, and each answer. Query parameters of the URL override them.
CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 1.0
#: What a scheme ends with that leads to a Cluster: ``redis+cluster://``, ``rediss+cluster://``.
CLUSTER = "+cluster"


class Script:
    """A Lua script. Redis knows it by its digest once it has seen its text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script with the keys that it touches, which share a slot, and its arguments."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | int] = ()


class Server:
    """The way to one Redis, or to one Cluster. Threads may share it; a child process gets connections of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Any = None
        _servers.add(self)

    @property
    def client(self) -> Any:
        """The client of this process, made on first use: redis-py keeps a connection per thread that is at work.

        Hold it while it is used: one that nobody holds any more closes its connections.
        """
        client = self._client
        if client is None:
            if problem := url_problem(self.url):
                raise ImproperlyConfigured(problem)
            client = self._client = _connect(self.url)
        return client

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over several servers."""
        return _is_cluster(self.url)

    def node_of(self, key: str) -> str:
        """Return a name of the server that holds a key."""
        if not self.is_cluster:
            return ""
        with self._in_time():
            return str(self.client.get_node_from_key(key).name)

    def forget(self) -> None:
        """Connect anew at the next use."""
        self._client = None

    def call(self, script: Script, keys: Sequence[str], *args: str | int) -> Any:
        """Run one script; return its answer."""
        return self.call_all([Call(script, keys, args)])[0]

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in this order; return their answers. One round trip, on a Cluster one for each script.

        Raises :exc:`HistoryUnavailable`; for an error that is an answer, when all answers have been heard.
        """
        with self._in_time():
            return self._call_all(calls)

    def _call_all(self, calls: Sequence[Call]) -> list[Any]:
        answers = self._send([("EVALSHA", call.script.digest, call) for call in calls])
        if unknown := [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]:
            # Redis was restarted, or its script cache flushed: the text goes along, and is known again.
            again = self._send([("EVAL", calls[index].script.text, calls[index]) for index in unknown])
            for index, answer in zip(unknown, again, strict=True):
                answers[index] = answer
        return _raise_first(answers)

    def _send(self, commands: Sequence[tuple[str, str, Call]]) -> list[Any]:
        lines = [(name, script, len(call.keys), *call.keys, *call.args) for name, script, call in commands]
        if self.is_cluster:
            # No pipeline: redis-py would send again, by itself, what one was not answered in time.
            client = self.client
            return [_outcome(client.execute_command, line) for line in lines]
        return self._pipelined(lines)

    def hash_fields(self, keys: Sequence[str], *fields: str) -> list[list[str | None]]:
        """Return these fields of hashes, in one round trip (on a Cluster one to each server)."""
        with self._in_time():
            return _raise_first(self._pipelined([("HMGET", key, *fields) for key in keys])) if keys else []

    def members(self, key: str) -> Iterator[str]:
        """Yield the members of a sorted set, some at a time; one that comes or moves meanwhile may come twice."""
        with self._in_time():
            for member, _ in self.client.zscan_iter(key, count=1000):
                yield member

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            if self.is_cluster or isinstance(error, ReadOnlyError):
                self.forget()  # the master is another one by now: perhaps the address leads there
            raise HistoryUnavailable(f"Redis did not do what it was asked: {type(error).__name__}: {error}") from error

    def _pipelined(self, lines: Sequence[Sequence[str | int]]) -> list[Any]:
        client = self.client
        with client.pipeline(transaction=False) as pipe:
            for line in lines:
                pipe.execute_command(*line)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers


def url_problem(url: str) -> str:
    """Return what is wrong with a value of ``LIVEFEED_REDIS``, or ""."""
    if not url:
        return "LIVEFEED_REDIS is not set, and the history or the leases are in Redis."
    try:
        ConnectionPool.from_url(_plain(url)).make_connection()  # which does not connect
    except (ValueError, TypeError):
        # Neither is quoted: there may be a password in it.
        return "LIVEFEED_REDIS is not the URL of a Redis, or asks for something that redis-py does not know."
    return ""


def _is_cluster(url: str) -> bool:
    return url.partition("://")[0].endswith(CLUSTER)


def _plain(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme.removesuffix(CLUSTER)}://{rest}"


def _connect(url: str) -> Any:
    make: Any = RedisCluster if _is_cluster(url) else Redis
    return make.from_url(
        _plain(url),
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
    )


def _outcome(send: Callable[..., Any], line: Sequence[str | int]) -> Any:
    """Return an answer, also one that is an error, as pipelines do."""
    try:
        return send(*line)
    except ResponseError as error:
        return error


def _raise_first(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _start_anew() -> None:
    """Let the parent's connections be the parent's: two processes on one would read each other's answers."""
    for server in list(_servers):
        server.forget()


os.register_at_fork(after_in_child=_start_anew)
