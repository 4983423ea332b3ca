"""The site that the view is asked on: the whole of it, from a raw ASGI scope, but in one thread and in memory.

What Django and livefeed do in threads is done at once, where it is asked for: threads cost more than all the rest of a
case, and would make one case run differently each time.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import re
import sys
import traceback
from asyncio.tasks import _enter_task as enter_task  # type: ignore[attr-defined]
from asyncio.tasks import _leave_task as leave_task  # type: ignore[attr-defined]
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import quote

from asgiref.sync import AsyncToSync, SyncToAsync
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.signals import got_request_exception, request_finished, request_started
from django.db import close_old_connections, connections
from django.test import override_settings

from livefeed.events import new_event
from livefeed.history import Retention, get_history
from livefeed.leases import Leases
from livefeed.links import stream_url
from livefeed.pool import Pool
from livefeed.roster import close_roster, get_roster
from livefeed.sse import KEEP_ALIVE
from livefeed.tokens import create_token
from livefeed.topics import sign_topic
from livefeed.visits import Visit
from tests.testapp.models import Article

#: Events of each topic that there is, in this order. "plain" goes out as text, line ends and all.
STORED = {
    "plain": ["one", "two\nlines", "data: x\r\n\r\nid: 7", {"n": 4}, "\u2028\ufeff", "six"],
    "build:42": [{"percent": 1}, {"percent": 2}],
    "plain:trimmed": list(range(8)),
    "secret:1": ["nobody but who has a signed name", "may read this"],
}
#: What "plain:trimmed" keeps.
KEPT = 3
EPOCH = "epoch1"
#: How a stream ends that has nothing to say for now.
QUIET = b"\n\n" + KEEP_ALIVE
_PLACE = re.compile(r"\{(?P<topic>[^{} ]+) for (?P<who>\w+)\}|\{[^{}]*\}")
#: Streams that one site serves before it is made anew, so that topics which nobody reads any more are forgotten.
FRESH_AFTER = 2_000
SETTINGS = {
    "LIVEFEED_HISTORY": "livefeed.history.memory.MemoryHistory",
    "LIVEFEED_LEASES": "tests.fuzzing.site.FreeLeases",
    "LIVEFEED_MAX_CONNECTIONS": 0,
    "LIVEFEED_CONNECTS_PER_MINUTE": 0,
    # Nothing looks at the history or the rights meanwhile.
    "LIVEFEED_LOOK_INTERVAL": 3600.0,
    "LIVEFEED_RECHECK_INTERVAL": 3600.0,
}


class FreeLeases(Leases):
    """Leases that cost nothing; what is taken is held until it is given back."""

    held: set[str] = set()
    _numbers = itertools.count()

    def acquire(self, *args: Any, **kwargs: Any) -> str:
        token = str(next(self._numbers))
        self.held.add(token)
        return token

    def renew(self, process: str) -> frozenset[str]:
        return frozenset(self.held)

    def release(self, tokens: Collection[str]) -> None:
        self.held.difference_update(tokens)


# What else keepers of leases can do, nobody asks of this one.
FreeLeases.__abstractmethods__ = frozenset()


@dataclass
class Answer:
    """What the site answered."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    #: Whether the answer ended by itself.
    ended: bool = False
    #: How many streams the site believed to be open afterwards.
    open_streams: int = 0

    def header(self, name: str) -> str:
        """Return a header; "" where there is none."""
        return next((value for other, value in self.headers if other.lower() == name.lower()), "")


class Who(NamedTuple):
    """Somebody who asks: the cookie of their session, the key that names are signed for, and the most a token opens."""

    name: str
    cookie: str
    key: str
    user: Any
    scope: frozenset[str] | None = None


class Site:
    """Answers requests, one after the other, on an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._handler = ASGIHandler()
        self._served = 0
        self._path = stream_url()
        self._signed: dict[tuple[str, str], str] = {}
        self.who: dict[str, Who] = {}
        #: Tokens, by what stands for them in a case, and whom they make of their bearers.
        self.tokens: dict[str, str] = {}
        self.bearers: dict[str, Who] = {}
        #: What failed since this was emptied, or was logged as an error: one in a stream is told nowhere else.
        self.errors: list[str] = []

    def note_exception(self, **kwargs: Any) -> None:
        """Note what a request failed with."""
        self.errors.append(f"{sys.exc_info()[1]!r} {traceback.format_exc()[-1_000:]}")

    def fill(self) -> None:
        """Store what the answers are made of."""
        users = get_user_model().objects
        self.who = {"": Who("", "", "anonymous", None)}
        for name in ("ann", "bob"):
            user = users.filter(username=name).first() or users.create_user(name)
            session = SessionStore(f"fuzzing-session-of-{name}")
            session[SESSION_KEY] = str(user.pk)
            session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
            session[HASH_SESSION_KEY] = user.get_session_auth_hash()
            session.save()
            self.who[name] = Who(name, f"sessionid={session.session_key}", f"user:{user.pk}", user)
        for name, topics in [("ann", None), ("ann", ["plain", "secret:1"]), ("bob", ["build:42"]), ("", ["secret:1"])]:
            self._make_token(name, topics)
        if not Article.objects.exists():
            Article.objects.bulk_create(Article(title=title) for title in ["<script>alert(1)</script>", "b"])
        history: Any = get_history()
        for topic, data in STORED.items():
            history.append([new_event(topic, item, "message") for item in data])
            history._topics[topic].epoch = EPOCH
        history.trim(lambda topic: Retention(0, KEPT), ["plain:trimmed"])

    def _make_token(self, name: str, topics: list[str] | None) -> None:
        who = self.who[name]
        place = f"{{token of {name or 'nobody'}{' for ' + ' '.join(topics) if topics else ''}}}"
        self.tokens[place] = create_token(who.user, topics, max_age=86_400)
        self.bearers[self.tokens[place]] = who._replace(scope=frozenset(topics) if topics else None)

    def signed(self, topic: str, who: str) -> str:
        """Return a signed name, the same for all of a run."""
        key = (topic, who)
        if key not in self._signed:
            self._signed[key] = sign_topic(topic, self.who[who].key)
        return self._signed[key]

    def filled_in(self, text: str) -> str:
        """Return a query or a header with its signed names and tokens.

        A case says `{secret:1 for ann}` where a name stands, and `{token of ann for plain}` or `{token of ann}` for a
        token with a scope or without.
        """
        return _PLACE.sub(self._in_place, text) if "{" in text else text

    def _in_place(self, place: re.Match[str]) -> str:
        who = "" if place["who"] == "nobody" else place["who"]
        known = place["topic"] in STORED and who in self.who
        return quote(self.signed(place["topic"], who)) if known else self.tokens.get(place[0], place[0])

    def scope(self, method: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
        """Return what a server hands on of a request."""
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": query,
            "headers": headers,
            "client": ("192.0.2.7", 50_000),
            "server": ("testserver", 80),
        }

    def ask(self, scope: dict[str, Any]) -> Answer:
        """Return what the site answers. A stream is left when it has nothing more to say for now."""
        return self._loop.run_until_complete(self._ask(scope))

    async def _ask(self, scope: dict[str, Any]) -> Answer:
        answer, left = Answer(), asyncio.Event()
        received = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            for message in received:
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]
                ]
                return
            answer.body += message.get("body", b"")
            answer.ended = not message.get("more_body", False)
            if answer.body.endswith(QUIET):
                left.set()
                return
            for stream in list(get_roster()._streams):
                stream.keep_alive()  # comes when nothing else is to come

        async with asyncio.timeout(10):
            await self._handler(scope, receive, send)
        answer.open_streams = len(get_roster())
        return answer

    def begin(self) -> None:
        """Count a case, before its names are signed: the same names are to be known until it has been judged."""
        self._served += 1
        if self._served % FRESH_AFTER == 0:
            self.fresh()

    def fresh(self) -> None:
        """Forget what earlier requests have left: tails that nobody reads, names that were signed."""
        self._signed.clear()
        self._loop.run_until_complete(close_roster())

    def close(self) -> None:
        """End everything."""
        self.fresh()
        self._loop.close()


def request_of(scope: dict[str, Any]) -> ASGIRequest | None:
    """Return Django's request; None where Django itself can't read what was sent, so that no view is asked."""
    try:
        return ASGIRequest(scope, io.BytesIO())
    except Exception:
        return None


@contextmanager
def without_threads() -> Iterator[None]:
    """Do at once, and where it is asked for, what would be done in a thread."""

    async def at_once(self: SyncToAsync[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)

    async def run(self: Pool, job: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return job(*args, **kwargs)

    def driven(self: AsyncToSync[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine that waits for nothing."""
        coroutine = self.awaitable(*args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise RuntimeError("A rule waited for something.")

    def opened(self: Visit, *args: Any, **kwargs: Any) -> Any:
        """Let the loop turn, inside of one of its turns, until the stream is open: no thread waits for it."""
        loop: Any = asyncio.get_running_loop()
        asking: Any = asyncio.current_task()
        opening = loop.create_task(get_roster().open(*args, **kwargs))
        leave_task(loop, asking)
        try:
            while not opening.done():
                loop._run_once()
        finally:
            enter_task(loop, asking)
        return opening.result()

    with ExitStack() as stack:
        stack.enter_context(patch.object(Visit, "open", opened))
        stack.enter_context(patch.object(SyncToAsync, "__call__", at_once))
        stack.enter_context(patch.object(AsyncToSync, "__call__", driven))
        stack.enter_context(patch.object(Pool, "run", run))
        # Each task would have connections of its own; a stream gives back those of its request's thread.
        mine = SimpleNamespace(**{alias: connections[alias] for alias in connections})
        stack.enter_context(patch.object(connections, "_connections", mine))
        stack.enter_context(patch.object(connections, "close_all", lambda: None))
        for signal in (request_started, request_finished):
            signal.disconnect(close_old_connections)
            stack.callback(signal.connect, close_old_connections)
        stack.enter_context(patch.dict("os.environ", {"DJANGO_ALLOW_ASYNC_UNSAFE": "1"}))
        yield


class _Listener(logging.Handler):
    """Notes errors."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(f"{record.getMessage()} {record.exc_info[1]!r}" if record.exc_info else record.getMessage())


_current: list[Site] = []


@contextmanager
def serving() -> Iterator[Site]:
    """Have the site for a while. The database has to be there, and is written to."""
    with override_settings(**SETTINGS), without_threads():
        site = Site()
        site.fill()
        _current.append(site)
        listener = _Listener(site.errors)
        got_request_exception.connect(site.note_exception)
        logging.getLogger("livefeed").addHandler(listener)
        try:
            yield site
        finally:
            logging.getLogger("livefeed").removeHandler(listener)
            got_request_exception.disconnect(site.note_exception)
            _current.pop()
            site.close()


def current() -> Site:
    """Return the site that serves now."""
    return _current[-1]


@contextmanager
def configured(said: dict[str, Any]) -> Iterator[None]:
    """Set ``LIVEFEED_*`` for one case. Quicker than Django's way, which tells everybody."""
    before = {name: getattr(django_settings, name, None) for name in said}
    missing = [name for name in said if not hasattr(django_settings, name)]
    for name, value in said.items():
        setattr(django_settings, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if name in missing:
                delattr(django_settings, name)
            else:
                setattr(django_settings, name, value)
