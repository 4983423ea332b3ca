"""Short transactions of our own: run again when they lose a race against another one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

T = TypeVar("T")

#: How often a transaction is tried that keeps losing.
TRIES = 8
# PostgreSQL: serialization failure and deadlock. MariaDB and MySQL: record changed since last read, lock wait timeout,
# deadlock. SQLite has no code for "database is locked" that Python passes on before 3.11, so its words are read.
_SQLSTATES = frozenset({"40001", "40P01"})
_MYSQL_CODES = frozenset({1020, 1205, 1213})


def short_transaction(alias: str, work: Callable[[], T]) -> T:
    """Run ``work`` in a transaction of its own on a database, at READ COMMITTED, up to TRIES times if it loses races.

    Inside somebody else's transaction it runs once, as part of that one: there is nothing that we could repeat.
    """
    return short_statement(alias, work if connections[alias].in_atomic_block else partial(_once, alias, work))


def short_statement(alias: str, work: Callable[[], T]) -> T:
    """Run ``work``, which is one statement and so a transaction by itself, up to TRIES times if it loses races.

    It is at the level that the database's own default is; inside somebody else's transaction it runs once.
    """
    if connections[alias].in_atomic_block:
        return work()
    for attempt in range(1, TRIES + 1):
        try:
            return work()
        except OperationalError as error:
            if attempt == TRIES or not _lost_a_race(error):
                raise
            time.sleep(random.uniform(0, 0.005 * 2**attempt))
    raise AssertionError("the last try returns or raises")


def _once(alias: str, work: Callable[[], T]) -> T:
    connection = connections[alias]
    relaxed = _is_stricter(connection)
    if relaxed and connection.vendor == "mysql":
        _relax(connection)  # holds for the next transaction, and only for that
    with transaction.atomic(using=alias):
        if relaxed and connection.vendor == "postgresql":
            _relax(connection)  # has to be the first statement
        return work()


def _is_stricter(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the site asks for more than READ COMMITTED, where plain reads would lock, or miss what is new."""
    if connection.vendor not in {"mysql", "postgresql"}:
        return False
    connection.ensure_connection()  # the level is known from then on
    level: Any = getattr(connection, "isolation_level", None)
    return str(getattr(level, "name", level)).replace("_", " ").lower() != "read committed"


def _relax(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


def _lost_a_race(error: OperationalError) -> bool:
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    code = error.args[0] if error.args else None
    return state in _SQLSTATES or code in _MYSQL_CODES or "database is locked" in str(error)


def says_that_a_database_is_away(error: BaseException) -> bool:
    """Tell whether an error of this thread's says that a database can't be asked: then nobody knows the answer."""
    return isinstance(error, (InterfaceError, OperationalError)) and database_is_away()


def database_is_away() -> bool:
    """Tell whether a connection of this thread broke, and not just a statement: ask it after an error."""
    used = [connection for connection in connections.all(initialized_only=True) if connection.errors_occurred]
    return any(connection.connection is None or not connection.is_usable() for connection in used)
