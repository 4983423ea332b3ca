from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from livefeed.transactions import TRIES, short_transaction

pytestmark = pytest.mark.django_db(transaction=True)


class DriverError(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def postgres(sqlstate: str) -> OperationalError:
    error = OperationalError("a race was lost")
    error.__cause__ = DriverError(sqlstate)
    return error


LOST_RACES = [
    pytest.param(lambda: postgres("40001"), id="PostgreSQL: serialization failure"),
    pytest.param(lambda: postgres("40P01"), id="PostgreSQL: deadlock"),
    pytest.param(lambda: OperationalError(1213, "Deadlock found"), id="MariaDB: deadlock"),
    pytest.param(lambda: OperationalError(1205, "Lock wait timeout exceeded"), id="MariaDB: lock wait timeout"),
    pytest.param(lambda: OperationalError(1020, "Record has changed since last read"), id="MariaDB: snapshot"),
    pytest.param(lambda: OperationalError("database is locked"), id="SQLite: locked"),
]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr("livefeed.transactions.time.sleep", made.append)
    return made


def failing(error: Callable[[], Exception], times: int) -> tuple[Callable[[], str], list[bool]]:
    """Return work that fails so often before it succeeds, and where it notes whether it was in a transaction."""
    tries: list[bool] = []

    def work() -> str:
        tries.append(connection.in_atomic_block)
        if len(tries) <= times:
            raise error()
        return "done"

    return work, tries


def test_work_runs_in_a_transaction_and_its_outcome_is_returned() -> None:
    work, tries = failing(Exception, 0)
    assert short_transaction("default", work) == "done"
    assert tries == [True]
    assert not connection.in_atomic_block


@pytest.mark.parametrize("error", LOST_RACES)
def test_work_that_loses_a_race_is_done_again(error: Callable[[], Exception], pauses: list[float]) -> None:
    work, tries = failing(error, 2)
    assert short_transaction("default", work) == "done"
    assert tries == [True] * 3
    assert len(pauses) == 2
    assert sum(pauses) < 1


@pytest.mark.parametrize("error", LOST_RACES)
def test_work_that_keeps_losing_is_given_up_with_the_database_s_own_error(error: Callable[[], Exception]) -> None:
    work, tries = failing(error, 99)
    with pytest.raises(OperationalError):
        short_transaction("default", work)
    assert len(tries) == TRIES
    assert not connection.in_atomic_block


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(lambda: OperationalError("the server went away"), id="server gone"),
        pytest.param(lambda: OperationalError(), id="without arguments"),
        pytest.param(lambda: postgres("53300"), id="too many connections"),
        pytest.param(lambda: IntegrityError("UNIQUE constraint failed"), id="integrity"),
        pytest.param(lambda: ValueError("database is locked"), id="not of the database"),
    ],
)
def test_any_other_failure_is_not_repeated(error: Callable[[], Exception], pauses: list[float]) -> None:
    work, tries = failing(error, 99)
    with pytest.raises(type(error())):
        short_transaction("default", work)
    assert len(tries) == 1
    assert pauses == []


def test_inside_another_transaction_work_runs_once_as_a_part_of_it() -> None:
    work, tries = failing(lambda: OperationalError("database is locked"), 1)
    with pytest.raises(OperationalError), transaction.atomic():
        short_transaction("default", work)
    assert tries == [True]
