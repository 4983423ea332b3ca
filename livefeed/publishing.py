"""``publish()``: the one door through which everything passes that becomes an event.

What it owes after the commit is a *debt*: numbering what the transaction recorded, or appending what a history outside
of the database could not record in it. The first debt of a commit settles all of them, however many saves there were.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import weakref
from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import backlog
from .announcing import announce
from .conf import settings
from .events import Event, Stretch, new_event
from .exceptions import WrongContext
from .history import get_history

logger = logging.getLogger("livefeed.publishing")


def publish(topic: str, data: Any = None, *, type: str = "message", store: bool = True) -> Event:
    """Publish an event: ``publish("build:42", {"percent": 70}, type="progress")``.

    In a transaction of ``LIVEFEED_DATABASE`` the event is part of it: it is delivered if and when that commits, and
    never seen if it rolls back. ``data`` is whatever Django's JSON encoder takes. With ``store=False`` the event is
    fleeting: not kept, not numbered, and dropped for whoever is not listening at that moment.

    Returns the event as it was recorded. Raises :exc:`~livefeed.exceptions.InvalidTopic`,
    :exc:`~livefeed.exceptions.InvalidType`, :exc:`~livefeed.exceptions.InvalidData`, or
    :exc:`~livefeed.exceptions.WrongContext` in a running event loop, where it would block: use :func:`apublish` there.
    """
    refuse_running_loop("publish()", "apublish(…)")
    event = new_event(topic, data, type)
    emit([event], using=settings.DATABASE, store=store)
    return event


async def apublish(topic: str, data: Any = None, *, type: str = "message", store: bool = True) -> Event:
    """Publish an event from async code; the async twin of :func:`publish`, with the same arguments and errors."""
    return await sync_to_async(publish)(topic, data, type=type, store=store)


def refuse_running_loop(call: str, twin: str) -> None:
    """Raise :exc:`WrongContext` in a thread that runs an event loop, with the name of the async twin."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise WrongContext(f"{call} would block the event loop that runs here. Use: await {twin}.")


def emit(events: Sequence[Event], *, using: str, store: bool = True) -> None:
    """Publish events that are part of what happens on the database ``using``, in its transaction if there is one."""
    connection = connections[using]
    history = get_history()
    if not store:
        _owe(connection, Debt(fleeting=events))
    elif history.alias != using:
        _owe(connection, Debt(events=events))
    elif connection.in_atomic_block or not connection.get_autocommit():
        history.record(events)
        _owe(connection, Debt(topics={event.topic for event in events}))
    else:
        announce(history.append(events))


def append(events: Sequence[Event]) -> None:
    """Write, number and announce events of changes that are committed elsewhere than in the history's database.

    Should that be in a transaction of its own at the moment, they are part of it: nothing is told before it commits.
    Where the history is away they wait for it (see ``backlog``).
    """
    history = get_history()
    if history.alias is not None and _in_transaction(connections[history.alias]):
        emit(events, using=history.alias)
    else:
        announce(backlog.append(events))


def _in_transaction(connection: BaseDatabaseWrapper) -> bool:
    return connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit())


class Debt:
    """What is owed after the commit. It goes with its savepoint: on a rollback nobody holds it any more."""

    _serial = itertools.count()

    def __init__(
        self, *, topics: set[str] | None = None, events: Sequence[Event] = (), fleeting: Sequence[Event] = ()
    ) -> None:
        self.topics = topics or set()
        self.events = events
        self.fleeting = fleeting
        self.connection: BaseDatabaseWrapper | None = None
        self.serial = next(self._serial)
        self.settled = False

    def settle(self) -> None:
        """Settle all debts of the commit that just happened, in one go; those that follow find themselves settled."""
        if not self.settled and self.connection is not None:
            settle(sorted(_debts.pop(self.connection, ()), key=lambda debt: debt.serial))


# Django lets go of its on_commit callbacks when their savepoint or transaction rolls back, and these sets hold debts
# weakly: so what is found in one at a commit is just what was committed. No list of our own could get out of step.
_debts: weakref.WeakKeyDictionary[BaseDatabaseWrapper, weakref.WeakSet[Debt]] = weakref.WeakKeyDictionary()


def _owe(connection: BaseDatabaseWrapper, debt: Debt) -> None:
    if connection.in_atomic_block:
        _debts.setdefault(connection, weakref.WeakSet()).add(debt)
        debt.connection = connection
        transaction.on_commit(debt.settle, using=connection.alias, robust=True)
    elif connection.connection is None or connection.get_autocommit():
        settle([debt])
    elif debt.events or debt.fleeting:
        # set_autocommit(False) outside of atomic(): nobody can tell us of the commit. What the database history
        # recorded is numbered by a hub's look; anything else would be sent before the commit, or never.
        raise WrongContext(
            f"The connection {connection.alias!r} is in manual transaction management, where a commit can't be "
            "observed. Publish inside transaction.atomic()."
        )


def settle(debts: Sequence[Debt]) -> None:
    """Number, append and announce. The writer's change is committed: nothing that fails here is raised."""
    for debt in debts:
        debt.settled = True
    _number(set[str]().union(*(debt.topics for debt in debts)))
    _append([event for debt in debts for event in debt.events])
    announce(Stretch(event.topic, "", (event,)) for debt in debts for event in debt.fleeting)


def _number(topics: set[str]) -> None:
    try:
        announce(get_history().number(topics) if topics else ())
    except Exception:
        logger.exception("Numbering after a commit failed; a hub does it at its next look.")


def _append(events: Sequence[Event]) -> None:
    try:
        if events:
            append(events)
    except Exception:
        logger.exception("Publishing on %s failed after a commit.", ", ".join({event.topic for event in events}))
