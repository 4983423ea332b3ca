"""What the tests of the writing half share: a topic read back, other writers, a word in between two statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import quote

from django.db import connection, transaction

from livefeed import Event, relay
from livefeed.history import get_history
from livefeed.testing.threads import at_once

T = TypeVar("T")

#: Seconds after which a thread of a test is given up.
PATIENCE = 60


class Doomed(Exception):
    """Roll this transaction back."""


@contextmanager
def rolled_back(using: str = "default") -> Iterator[None]:
    """Do something in a transaction, or in a savepoint of one, and roll it back."""
    with suppress(Doomed), transaction.atomic(using=using):
        yield
        raise Doomed


def look() -> None:
    """Number what nobody numbered, as a hub does with two looks."""
    _, seen = get_history().leftovers(frozenset())
    get_history().leftovers(seen)


def stored(topic: str) -> list[Event]:
    """Return the numbered events of a topic, once the relay is done, and assert that their numbers are 1, 2, 3 …"""
    relay.flush(PATIENCE)
    events = list(get_history().read(topic, 0, 100_000).events)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return events


def told(topic: str) -> list[tuple[str, Any]]:
    """Return type and data of the numbered events of a topic."""
    return [(event.type, event.data) for event in stored(topic)]


def in_thread(work: Callable[[], T]) -> T:
    """Run something in a thread of its own, with database connections of its own, to its end."""
    return at_once([work])[0]


@contextmanager
def interrupted(after: str, interlude: Callable[[], object]) -> Iterator[None]:
    """Do something once, behind this connection's first statement that contains ``after`` and before its next one."""
    state = "waiting"

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal state
        if state == "due":
            state = "done"
            interlude()
        elif state == "waiting" and after in sql.replace("`", '"'):
            state = "due"
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield
    assert state == "done", f"no statement contained {after!r}, or none followed"


@contextmanager
def statements(*fragments: str) -> Iterator[list[str]]:
    """Collect this connection's statements that contain all of these fragments."""
    found: list[str] = []

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        text = sql.replace("`", '"')
        if all(fragment in text for fragment in fragments):
            found.append(text)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield found


def database_url() -> str:
    """Return the URL of the database under test, for LIVEFEED_TEST_DATABASE of another process."""
    conf = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{conf['NAME']}?timeout=20"
    scheme = {"postgresql": "postgres", "mysql": "mysql"}[connection.vendor]
    login = ":".join(quote(str(conf[key]), safe="") for key in ("USER", "PASSWORD") if conf[key])
    port = f":{conf['PORT']}" if conf["PORT"] else ""
    return f"{scheme}://{login}@{conf['HOST']}{port}/{conf['NAME']}"
