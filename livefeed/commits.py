"""A word before the end of a transaction, which Django has for nobody: ``on_commit()`` comes when all is over.

What is written once for a whole transaction has to be written just before its COMMIT, and before each savepoint, which
may be rolled back to without it. Statements are watched by Django's documented ``execute_wrappers``: savepoints are
made, released and rolled back to by those. COMMIT and ROLLBACK pass nothing of that kind; so ``commit`` and
``rollback``, which ``Atomic.__exit__()`` calls by these names on the connection, and ``close``, are replaced on the
instance, as long as there is something to write. Should a commit ever go another way, nobody is told before it, and
whoever registered with ``on_commit()`` finds what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, Error
from django.db.backends.base.base import BaseDatabaseWrapper

#: Statements that read and write rows, as Django begins them. Before any other one everything has to be written.
_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")
#: MariaDB's and MySQL's deadlock, and MariaDB's "record has changed since last read": InnoDB rolls all back.
_ROLLED_BACK = frozenset({1213, 1020})


class Ending:
    """Calls ``write`` before a connection's transaction commits, or ``discard`` when a part of it is rolled back.

    It sees all statements until it makes either call, once, and then is :attr:`over` and leaves the connection as it
    was. ``discard`` comes when what was not written is what is rolled back: since the last savepoint was made, or all.
    """

    def __init__(self, connection: BaseDatabaseWrapper, write: Callable[[], None], discard: Callable[[], None]) -> None:
        self.over = False
        self._connection = connection
        self._write = write
        self._discard = discard
        self._replaced = {
            name: self._replace(name, ours)
            for name, ours in (("commit", self._commit), ("rollback", self._rollback), ("close", self._close))
        }
        # In front, since execute_wrapper() takes away the last one when its block ends.
        connection.execute_wrappers.insert(0, self._execute)

    def _replace(self, name: str, ours: Callable[[], None]) -> tuple[Callable[[], None], Callable[[], None], bool]:
        theirs, is_instance_s = getattr(self._connection, name), name in vars(self._connection)
        setattr(self._connection, name, ours)
        return ours, theirs, is_instance_s

    def _end(self, call: Callable[[], None]) -> None:
        if not self.over:
            self.over = True
            self._leave()
            call()

    def _leave(self) -> None:
        """Take away what was put on the connection, unless somebody else did so, or put something on top."""
        with suppress(ValueError):
            self._connection.execute_wrappers.remove(self._execute)
        attributes = vars(self._connection)
        for name, (ours, theirs, is_instance_s) in self._replaced.items():
            if attributes.get(name) == ours:
                del attributes[name]
                if is_instance_s:
                    attributes[name] = theirs

    def _execute(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = sql if isinstance(sql, str) else ""
        rolls_back = text.startswith("ROLLBACK")
        if not rolls_back and (not text.startswith(_ROWS) or ";" in text):
            self._end(self._write)
        try:
            result = execute(sql, params, many, context)
        except Error as error:
            if self._is_rolled_back_by(error):
                self._end(self._discard)
            raise
        if rolls_back:
            self._end(self._discard)
        return result

    def _is_rolled_back_by(self, error: Error) -> bool:
        """Tell whether the database rolled the transaction back by itself, and would take more statements."""
        if self._connection.vendor == "sqlite":
            return self._connection.connection is not None and not self._connection.connection.in_transaction
        return self._connection.vendor == "mysql" and error.args[:1] in {(code,) for code in _ROLLED_BACK}

    def _commit(self) -> None:
        try:
            self._end(self._write)
        except DatabaseError:
            raise  # Atomic.__exit__() rolls back
        except BaseException:
            self._undo()
            raise
        self._replaced["commit"][1]()

    def _undo(self) -> None:
        try:
            self._connection.rollback()
        except Error:
            self._connection.close()

    def _rollback(self) -> None:
        self._replaced["rollback"][1]()  # raises in an atomic block, which goes on
        self._end(self._discard)

    def _close(self) -> None:
        self._replaced["close"][1]()
        self._end(self._discard)
