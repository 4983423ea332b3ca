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


class DatabaseWrapper(BaseDatabaseWrapper):
    """A connection, of one simulated thread."""

    vendor = "simulated"
    display_name = "Simulated"
    Database = utils
    client_class = dummy.DatabaseClient
    creation_class = dummy.DatabaseCreation
    features_class = DatabaseFeatures
    introspection_class = dummy.DatabaseIntrospection
    ops_class = dummy.DatabaseOperations

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

    def _savepoint(self, sid: str) -> None:
        self.connection.savepoint(sid)

    def _savepoint_rollback(self, sid: str) -> None:
        self.connection.savepoint_rollback(sid)

    def _savepoint_commit(self, sid: str) -> None:
        pass
