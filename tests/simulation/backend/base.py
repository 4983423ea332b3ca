"""Django's connection to the simulated store. ``atomic()``, savepoints and ``on_commit()`` are Django's own code."""

from __future__ import annotations

from typing import Any

from django.db import utils
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.features import BaseDatabaseFeatures
from django.db.backends.dummy import base as dummy

from tests.simulation.store import STORE, Session


class DatabaseFeatures(BaseDatabaseFeatures):
    """Transactions and savepoints."""

    supports_transactions = True
    uses_savepoints = True


class DatabaseOperations(dummy.DatabaseOperations):
    """The names of savepoints."""

    def quote_name(self, name: str) -> str:
        return name


class Cursor:
    """Takes the statements that Django makes savepoints with, so that who watches its statements sees them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def execute(self, sql: str) -> None:
        verb, *_, sid = sql.split()
        if verb == "SAVEPOINT":
            self._session.savepoint(sid)
        elif verb == "ROLLBACK":
            self._session.savepoint_rollback(sid)

    def close(self) -> None:
        pass


class DatabaseWrapper(BaseDatabaseWrapper):
    """A connection, of one simulated thread."""

    vendor = "simulated"
    display_name = "Simulated"
    Database = utils
    client_class = dummy.DatabaseClient
    creation_class = dummy.DatabaseCreation
    features_class = DatabaseFeatures
    introspection_class = dummy.DatabaseIntrospection
    ops_class = DatabaseOperations

    def get_connection_params(self) -> dict[str, Any]:
        return {}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Session:
        return STORE[0].session()

    def init_connection_state(self) -> None:
        pass

    def is_usable(self) -> bool:
        return True

    def _set_autocommit(self, autocommit: bool) -> None:
        pass

    def create_cursor(self, name: str | None = None) -> Cursor:
        return Cursor(self.connection)
