"""A word before the end of a transaction, which Django has for nobody: ``on_commit()`` comes when all is over.

What is written once for a whole transaction has to be written just before its COMMIT, and before each savepoint, which
may be rolled back to without it. Statements are watched by Django's documented ``execute_wrappers``: savepoints are
made, released and rolled back to by those. COMMIT and ROLLBACK pass nothing of that kind; so ``commit`` and
``rollback``, which ``Atomic.__exit__()`` calls by these names on the connection, are replaced on the instance. Should a
commit ever go another way, nobody is told before it, and whoever registered with ``on_commit()`` finds what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

#: Statements that read and write rows, as Django begins them. Before any other one everything has to be written.
_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")


class Ending:
    """Calls ``write`` before a connection's transaction commits, or ``discard`` when a part of it is rolled back.

    Between :meth:`watch` and either call it sees all statements. ``discard`` comes when what was not written is what is
    rolled back: since the last savepoint was made, or all.
    """

    def __init__(self, connection: BaseDatabaseWrapper, write: Callable[[], None], discard: Callable[[], None]) -> None:
        self._connection = connection
        self._write = write
        self._discard = discard
        self._watches = False
        self._commit = connection.commit
        self._rollback = connection.rollback
        instance: Any = connection
        instance.commit, instance.rollback = self._before_commit, self._before_rollback

    def watch(self) -> None:
        """Be told of what happens from now on."""
        if not self._watches:
            self._watches = True
            # In front, since execute_wrapper() takes away the last one when its block ends.
            self._connection.execute_wrappers.insert(0, self._before_statement)

    def _end(self, call: Callable[[], None]) -> None:
        if self._watches:
            self._watches = False
            self._connection.execute_wrappers.remove(self._before_statement)
            call()

    def _before_statement(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = sql if isinstance(sql, str) else ""
        if not text.startswith(_ROWS):
            self._end(self._discard if text.startswith("ROLLBACK") else self._write)
        return execute(sql, params, many, context)

    def _before_commit(self) -> None:
        try:
            self._end(self._write)
        except BaseException:
            self._rollback()  # Atomic.__exit__() does so only for a DatabaseError
            raise
        self._commit()

    def _before_rollback(self) -> None:
        self._end(self._discard)
        self._rollback()
