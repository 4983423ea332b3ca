"""``publish()``: the one door through which everything passes that becomes an event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from . import relay
from .announcing import announce
from .conf import settings
from .debts import Debt, in_transaction, owe, record
from .events import Event, new_event
from .exceptions import WrongContext
from .history import get_history
from .transactions import short_statement, short_transaction


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
        owe(connection, Debt(fleeting=events))
    elif history.alias != using:
        owe(connection, Debt(events=events))
    elif in_transaction(connection):
        record(connection, events)
    elif relay.serves():
        write = short_statement if len(events) == 1 else short_transaction
        write(using, lambda: history.record(events))
        relay.number_soon({event.topic for event in events})
    else:
        announce(history.append(events))
