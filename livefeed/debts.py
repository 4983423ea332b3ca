"""What a transaction owes: events that are to be written before its commit, and what is to be done after it.

After the commit that is numbering what was written, appending what a history outside of the database could not record
in it, and sending what is fleeting. The first debt of a commit settles all of them, however many saves there were.
"""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Sequence

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import backlog, relay
from .announcing import announce
from .commits import Ending
from .events import Event, Stretch
from .exceptions import WrongContext
from .history import get_history
from .transactions import short_transaction

logger = logging.getLogger("livefeed.publishing")

#: Events that one transaction keeps in memory until they are written, and bytes of their data.
UNWRITTEN, UNWRITTEN_BYTES = 600, 1024 * 1024


class Debt:
    """What is owed after the commit. It goes with its savepoint: on a rollback nobody holds it any more."""

    _serial = itertools.count()

    def __init__(
        self, *, recorded: Sequence[Event] = (), events: Sequence[Event] = (), fleeting: Sequence[Event] = ()
    ) -> None:
        self.topics = {event.topic for event in recorded}
        self.unwritten = recorded
        self.events = events
        self.fleeting = fleeting
        self.serial = next(self._serial)
        self.account: Account | None = None
        self.settled = False

    def settle(self) -> None:
        """Settle all debts of the commit that just happened, in one go; those that follow find themselves settled."""
        if not self.settled and self.account is not None:
            settle(self.account.close())


class Account:
    """The debts of one connection's transaction, and what of them is still to be written in it.

    That is written just before the transaction commits or makes a savepoint: for a thousand saves one statement in
    hundreds. The rows that the events tell of are locked until the commit, so two who change one row still publish in
    the order of their commits.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        # Django lets go of its on_commit callbacks when their savepoint or transaction rolls back, and debts are held
        # weakly here: so what is found at a commit is just what was committed. Nothing of ours could get out of step.
        self._debts: weakref.WeakSet[Debt] = weakref.WeakSet()
        self._unwritten: list[weakref.ref[Debt]] = []
        self._events = self._bytes = 0
        self._ending: Ending | None = None

    def owe(self, debt: Debt) -> None:
        """Settle a debt after the commit."""
        self._debts.add(debt)
        debt.account = self
        transaction.on_commit(debt.settle, using=self._connection.alias, robust=True)

    def record(self, events: Sequence[Event]) -> None:
        """Have events written in this transaction, and numbered after its commit."""
        debt = Debt(recorded=events)
        self.owe(debt)
        self._unwritten.append(weakref.ref(debt))
        self._events += len(events)
        self._bytes += sum(event.size for event in events)
        if self._events >= UNWRITTEN or self._bytes >= UNWRITTEN_BYTES or not self._is_told_of_its_end():
            self._write()
        elif self._ending is None or self._ending.over:
            self._ending = Ending(self._connection, write=self._write, discard=self._discard)

    def _is_told_of_its_end(self) -> bool:
        # In a transaction that was begun by hand nobody may ever call commit(), and of one whose connection was closed
        # nothing is left: there the insert fails, as any other statement does.
        return self._connection.commit_on_exit and not self._connection.closed_in_transaction

    def _write(self) -> None:
        if events := self._taken():
            get_history().record(events)

    def _discard(self) -> None:
        self._taken()

    def _taken(self) -> list[Event]:
        """Return what is to be written, once: if that fails, the transaction does."""
        events: list[Event] = []
        for reference in self._unwritten:
            if (debt := reference()) is not None:
                events += debt.unwritten
                debt.unwritten = ()
        self._unwritten = []
        self._events = self._bytes = 0
        return events

    def close(self) -> Sequence[Debt]:
        """Return the debts of the commit that just happened, in order, and begin anew."""
        debts, self._debts, self._unwritten = self._debts, weakref.WeakSet(), []
        return sorted(debts, key=lambda debt: debt.serial)


def _account(connection: BaseDatabaseWrapper) -> Account:
    """Return a connection's account, which goes with it."""
    kept = vars(connection)
    if "livefeed" not in kept:
        kept["livefeed"] = Account(connection)
    account: Account = kept["livefeed"]
    return account


def owe(connection: BaseDatabaseWrapper, debt: Debt) -> None:
    """Settle a debt after the commit of the transaction at hand, or now where there is none."""
    if connection.in_atomic_block:
        _account(connection).owe(debt)
    elif not in_transaction(connection):
        settle([debt])
    else:
        # set_autocommit(False) outside of atomic(): nobody can tell us of the commit. What the database history
        # recorded is numbered by a hub's look; anything else would be sent before the commit, or never.
        raise WrongContext(
            f"The connection {connection.alias!r} is in manual transaction management, where a commit can't be "
            "observed. Publish inside transaction.atomic()."
        )


def record(connection: BaseDatabaseWrapper, events: Sequence[Event]) -> None:
    """Have events written in the transaction at hand, and numbered after its commit, if anybody tells of that."""
    if connection.in_atomic_block:
        _account(connection).record(events)
    else:
        get_history().record(events)


def append(events: Sequence[Event]) -> None:
    """Write, number and announce events of changes that are committed elsewhere than in the history's database.

    Should that be in a transaction of its own at the moment, they are part of it: nothing is told before it commits.
    Where the history is away they wait for it (see ``backlog``).
    """
    alias = get_history().alias
    if alias is not None and in_transaction(connections[alias]):
        record(connections[alias], events)
    else:
        announce(backlog.append(events))


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether what is written now is committed later."""
    return connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit())


def settle(debts: Sequence[Debt]) -> None:
    """Number, append and announce. The writer's change is committed: nothing that fails here is raised."""
    for debt in debts:
        debt.settled = True
    _write([event for debt in debts for event in debt.unwritten])
    if topics := set[str]().union(*(debt.topics for debt in debts)):
        relay.number_soon(topics)
    _append([event for debt in debts for event in debt.events])
    announce(Stretch(event.topic, "", (event,)) for debt in debts for event in debt.fleeting)


def _write(events: Sequence[Event]) -> None:
    """Write what is still to be written: the commit came in a way that nobody is told of before."""
    history = get_history()
    try:
        if events and history.alias is not None:
            short_transaction(history.alias, lambda: history.record(events))
    except Exception:
        logger.exception("Publishing on %s failed after a commit.", ", ".join({event.topic for event in events}))


def _append(events: Sequence[Event]) -> None:
    try:
        if events:
            append(events)
    except Exception:
        logger.exception("Publishing on %s failed after a commit.", ", ".join({event.topic for event in events}))
