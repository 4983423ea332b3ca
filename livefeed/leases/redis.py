"""Leases in Redis (``LIVEFEED_REDIS``), for sites whose database has better things to do than to count connections.

Each operation is one script, so limits are exact by themselves. What a process holds it also remembers itself: a lease
that Redis does not know any more, because it was flushed, restarted empty, evicted it, or was away for longer than
LIVEFEED_LEASE_SECONDS, is entered again at the next renewal, if its limits have room. So a restart of Redis closes no
stream; but what processes hold does not count until they have renewed it. What was taken over or away leaves a note
for an hour, and is not entered again.

An :meth:`~RedisLeases.acquire` that got no answer may have taken a place, which is free when that lease expires.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from django.conf import settings as django_settings

from ..conf import settings
from ..redis_server import Call, Server
from . import redis_scripts as scripts
from .base import CHORE, Connection, LeaseRequest, Leases, batches, check_given

#: Leases in one script: none keeps Redis busy for long.
BATCH = 100
#: What :data:`~.redis_scripts.ACQUIRE` answers where it did.
ACQUIRED = -1


class RedisLeases(Leases):
    """Leases in ``LIVEFEED_REDIS``, in one slot of a Cluster."""

    def __init__(self) -> None:
        self.server = Server(settings.REDIS)
        self._given: dict[str, LeaseRequest] = {}

    def acquire(self, request: LeaseRequest) -> str:
        (answer,) = self.acquire_all([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def acquire_all(self, requests: Sequence[LeaseRequest]) -> list[str | Exception]:
        """Acquire leases in one round trip."""
        tokens = [uuid.uuid4().hex for _ in requests]
        calls = [_acquiring(token, request, again=False) for token, request in zip(tokens, requests, strict=True)]
        answers: list[str | Exception] = []
        for token, request, answer in zip(tokens, requests, self.server.call_all(calls), strict=True):
            if answer == ACQUIRED:
                self._given[token] = request
            answers.append(token if answer == ACQUIRED else request.claims[answer].reached())
        return answers

    def renew(self, process: str) -> frozenset[str]:
        mine = [token for token, request in list(self._given.items()) if request.process == process]
        held: set[str] = set()
        for some in batches(mine, BATCH):
            missing = set(self.server.call(scripts.RENEW, [_base()], _lasts(), *some))
            held |= set(some) - missing | self._enter_again(missing)
        return frozenset(held)

    def _enter_again(self, tokens: Iterable[str]) -> set[str]:
        """Enter leases that are missing; return those that are there again, and forget the others."""
        lost = {token: request for token in tokens if (request := self._given.get(token))}
        calls = [_acquiring(token, request, again=True) for token, request in lost.items()]
        answers = dict(zip(lost, self.server.call_all(calls), strict=True)) if calls else {}
        for token, answer in answers.items():
            if answer != ACQUIRED:
                self._given.pop(token, None)
        return {token for token, answer in answers.items() if answer == ACQUIRED}

    def release(self, tokens: Collection[str]) -> None:
        for some in batches(tokens, BATCH):
            for token in some:
                self._given.pop(token, None)
            self.server.call(scripts.RELEASE, [_base()], *some)

    def revoke(self, *, holder: str = "", session: str = "", topic: str = "", tokens: Collection[str] = ()) -> int:
        check_given(holder, session, topic, tokens)
        return sum(
            self.server.call(scripts.REVOKE, [_base()], holder, session, topic, *some)
            for some in batches(tokens or self._tokens(holder), BATCH)
        )

    def connections(self, *, holder: str = "", session: str = "", topic: str = "") -> Iterator[Connection]:
        for some in batches(self._tokens(holder), BATCH):
            for token, claims, *fields in self.server.call(scripts.LIVE, [_base()], *some):
                found = _connection(token, json.loads(claims)[0], *fields)
                right = session in ("", found.session) and (not topic or topic in found.topics)
                if right and not found.holder.startswith(CHORE):
                    yield found

    def sweep(self) -> int:
        """Remove what is left of leases that expired; return how many."""
        gone = 0
        while count := self.server.call(scripts.SWEEP, [_base()], BATCH):
            gone += count
        return gone

    def _tokens(self, holder: str) -> set[str]:
        """Return the tokens of a holder's leases, or of all; some may be over."""
        return set(self.server.members(_base() + (f"holder:{holder}" if holder else "all")))


def _base() -> str:
    return f"livefeed:{settings.prefix}:{{leases}}:"


def _lasts() -> int:
    return int(settings.LEASE_SECONDS * 1000)


def _acquiring(token: str, request: LeaseRequest, *, again: bool) -> Call:
    who = (request.client, request.process, request.session, " ".join(request.topics))
    claims = [value for claim in request.claims for value in claim]
    return Call(scripts.ACQUIRE, [_base()], [token, _lasts(), *who, int(again), *claims])


def _connection(
    token: str, holder: str, session: str, topics: str, process: str, opened: str, expires: str
) -> Connection:
    return Connection(holder, session, tuple(topics.split()), process, _moment(opened), _moment(expires), token)


def _moment(milliseconds: str) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC if django_settings.USE_TZ else None)
