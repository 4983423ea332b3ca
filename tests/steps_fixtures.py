"""A site whose history and leases are on a database server, whatever the other tables are on.

A plugin of its own: ``pytest_plugins = ["tests.steps_fixtures"]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dj_database_url
import pytest
from django.core.management import call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from livefeed.models import Lease, LeaseClaim, StoredEvent, StoredTopic

#: Where one statement waits for another one's lock, it fails after this many seconds.
LOCK_SECONDS = 3
OPTIONS: dict[str, dict[str, Any]] = {
    "postgres": {"options": f"-c lock_timeout={LOCK_SECONDS}s"},
    "mariadb": {"init_command": f"SET innodb_lock_wait_timeout = {LOCK_SECONDS}"},
}


@pytest.fixture(
    params=[
        pytest.param("postgres", marks=pytest.mark.needs("postgres")),
        pytest.param("mariadb", marks=pytest.mark.needs("mariadb")),
    ]
)
def server(
    request: pytest.FixtureRequest, transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The alias of each database server in turn, on which an empty history and the leases are."""
    alias: str = request.param
    _allow(alias, monkeypatch)
    found = dj_database_url.parse(request.getfixturevalue(f"{alias}_url"))
    connections.settings[alias] = {**connections.settings["default"], **found, "OPTIONS": OPTIONS[alias]}
    try:
        settings.LIVEFEED_DATABASE = alias
        _make_tables(alias)
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def _allow(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test connect to one more database; Django's tests name theirs before they begin."""
    guarded = BaseDatabaseWrapper.ensure_connection

    def ensure_connection(connection: BaseDatabaseWrapper) -> None:
        if connection.alias == alias and connection.connection is None:
            with connection.wrap_database_errors:
                connection.connect()
        else:
            guarded(connection)

    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", ensure_connection)


def _make_tables(alias: str) -> None:
    call_command("migrate", "livefeed", database=alias, verbosity=0)
    for model in (StoredTopic, StoredEvent, LeaseClaim, Lease):
        model.objects.using(alias).all().delete()
