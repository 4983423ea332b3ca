"""What one transaction publishes is written together just before its end: whatever ends it, and whatever is undone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.models import Value
from django.db.models.functions import Concat

from livefeed import debts, publish
from livefeed.commits import Ending
from livefeed.history.database import DatabaseHistory
from livefeed.models import StoredEvent
from livefeed.testing import capture_events

from .testapp.models import Author
from .writing import Doomed, look, rolled_back, statements, stored

pytestmark = pytest.mark.django_db(transaction=True)

INSERT = 'INSERT INTO "livefeed_event"'


def texts(topic: str = "build") -> list[Any]:
    return [event.data for event in stored(topic)]


def authors() -> int:
    return Author.objects.count()


# -- when it is written -----------------------------------------------------------------------------------------------


def test_what_a_transaction_publishes_is_written_by_its_last_statement_before_the_commit() -> None:
    with statements() as seen:
        with transaction.atomic():
            publish("build", 1)
            Author.objects.create(name="Ada")
            publish("news", 2)
            assert not [sql for sql in seen if INSERT in sql]
            del seen[:]
        assert [INSERT in sql for sql in seen][:1] == [True]
        assert len([sql for sql in seen if INSERT in sql]) == 1
    assert (texts(), texts("news")) == ([1], [2])


def test_it_is_written_before_each_savepoint_and_before_what_is_no_reading_or_writing_of_rows() -> None:
    with statements(INSERT) as seen, transaction.atomic():
        publish("build", 1)
        with transaction.atomic():
            assert len(seen) == 1
            publish("build", 2)
            Author.objects.create(name="Ada")
            assert authors() == 1
            assert len(seen) == 1
        assert len(seen) == 2
        publish("build", 3)
        with connection.cursor() as cursor:
            cursor.execute("  select 1")
        assert len(seen) == 3
    assert len(seen) == 3
    assert texts() == [1, 2, 3]


@pytest.mark.parametrize(("name", "most"), [("UNWRITTEN", 10), ("UNWRITTEN_BYTES", 100)])
def test_no_more_waits_in_memory_than_is_allowed(monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> None:
    monkeypatch.setattr(debts, name, most)
    with statements(INSERT) as seen, transaction.atomic():
        for _ in range(30):
            publish("build", "8 bytes")
        assert len(seen) == 30 // 10 if name == "UNWRITTEN" else len(seen) > 1
    assert len(texts()) == 30


def test_without_autocommit_each_event_is_written_at_once() -> None:
    transaction.set_autocommit(False)
    try:
        with statements(INSERT) as seen:
            publish("build", 1)
            with transaction.atomic():
                publish("build", 2)
                assert len(seen) == 2
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    look()
    assert texts() == [1, 2]


# -- what is undone ---------------------------------------------------------------------------------------------------


def savepoint() -> str:
    sid: str = getattr(transaction, "savepoint_create", transaction.savepoint)()  # its name since Django 6.1
    return sid


def test_savepoints_made_by_hand_undo_what_was_published_since_and_nothing_else() -> None:
    with transaction.atomic():
        publish("build", 1)
        outer = savepoint()
        publish("build", "phantom")
        inner = savepoint()
        publish("build", "phantom")
        transaction.savepoint_rollback(inner)
        publish("build", "phantom")
        transaction.savepoint_commit(inner)
        publish("build", "phantom")
        transaction.savepoint_rollback(outer)
        publish("build", 2)
    assert texts() == [1, 2]


def test_what_a_callback_of_a_rolled_back_transaction_is_kept_by_is_published_by_none() -> None:
    """Somebody may hold what Django has let go of, as who captures callbacks does."""
    kept: list[Any] = []
    with rolled_back():
        publish("build", "phantom")
        kept += connection.run_on_commit
    with transaction.atomic():
        with rolled_back():
            publish("build", "phantom")
            kept += connection.run_on_commit
        publish("build", 1)
    assert kept
    assert texts() == [1]


def test_a_transaction_whose_connection_is_lost_publishes_nothing() -> None:
    def lose() -> None:
        with transaction.atomic():
            publish("build", "phantom")
            connection.close()

    with suppress(DatabaseError, InterfaceError):
        lose()
    with transaction.atomic():
        publish("build", 1)
    assert texts() == [1]


@pytest.mark.parametrize("begin", ["{}", "/* mine */ {}", "SELECT 1; {}"])
def test_savepoints_in_raw_sql_undo_what_was_published_since_and_nothing_else(begin: str) -> None:
    if connection.vendor != "postgresql":
        begin = begin.replace("SELECT 1; ", "  ")  # they take one statement at a time
    with transaction.atomic(), connection.cursor() as cursor:
        publish("build", 1)
        cursor.execute(begin.format("SAVEPOINT mine"))
        publish("build", "phantom")
        cursor.execute(begin.format("ROLLBACK TO SAVEPOINT mine"))
        publish("build", 2)
    assert texts() == [1, 2]


def test_a_rollback_that_is_refused_undoes_nothing() -> None:
    with transaction.atomic():
        publish("build", 1)
        with pytest.raises(transaction.TransactionManagementError):
            transaction.rollback()
    assert texts() == [1]


def fails_and_takes_the_transaction_along(mine: Author, other: Author) -> None:
    """Be rolled back by the database itself, which Django does not notice."""
    if connection.vendor == "mysql":
        held = threading.Barrier(2)
        thread = threading.Thread(target=win_a_deadlock, args=(mine, other, held))
        thread.start()
        held.wait(60)
        try:
            list(Author.objects.select_for_update().filter(pk=other.pk))
        finally:
            thread.join(60)
    else:
        conflict = "OR ROLLBACK" if connection.vendor == "sqlite" else ""
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT {conflict} INTO testapp_author (id, name) VALUES (%s, %s)", [other.pk, "Twin"])


def win_a_deadlock(theirs: Author, mine: Author, held: threading.Barrier) -> None:
    with transaction.atomic():
        for _ in range(20):  # InnoDB rolls back who has changed less
            Author.objects.filter(pk=mine.pk).update(name=Concat("name", Value("!")))
            Author.objects.create(name="Ballast").delete()
        held.wait(60)
        Author.objects.filter(pk=theirs.pk).update(name="theirs")
    connection.close()


def test_what_the_database_rolls_back_by_itself_is_not_published_by_who_goes_on() -> None:
    mine, other = (Author.objects.create(name=name) for name in ("Ada", "Grace"))
    # On PostgreSQL nobody goes on: it takes no further statement.
    with suppress(DatabaseError), transaction.atomic():
        Author.objects.filter(pk=mine.pk).update(name="mine")
        publish("build", "phantom")
        with pytest.raises(DatabaseError):
            fails_and_takes_the_transaction_along(mine, other)
        publish("build", 1)
    assert not Author.objects.filter(name="mine")
    assert texts() == ([] if connection.vendor == "postgresql" else [1])


def test_what_a_closed_connection_left_is_published_by_none_even_if_somebody_holds_its_callbacks() -> None:
    kept: list[Any] = []
    with suppress(DatabaseError, InterfaceError), transaction.atomic():
        publish("build", "phantom")
        kept += connection.run_on_commit
        connection.close()
    with transaction.atomic():
        publish("build", 1)
    assert kept
    assert texts() == [1]


def test_behind_a_connection_that_was_closed_publishing_fails_as_any_statement_does() -> None:
    with transaction.atomic():
        connection.close()
        with pytest.raises(DatabaseError):
            publish("build", "phantom")
    with transaction.atomic():
        publish("build", 1)
    assert texts() == [1]


# -- what goes wrong --------------------------------------------------------------------------------------------------


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Any:
    def fails(self: DatabaseHistory, events: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseHistory, "record", fails)
        yield


@pytest.mark.parametrize("error", [OperationalError("no room"), InterfaceError("closed"), ValueError("a bug")])
def test_an_insert_that_fails_fails_the_transaction_and_rolls_it_back(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def work() -> None:
        with transaction.atomic():
            Author.objects.create(name="Ada")
            publish("build", 1)

    with failing(monkeypatch, error), pytest.raises(type(error)):
        work()
    assert authors() == 0
    assert connection.get_autocommit()
    work()
    assert (authors(), texts()) == (1, [1])


def test_an_insert_that_fails_before_a_savepoint_fails_whoever_makes_it() -> None:
    """And the transaction can't go on as if nothing had happened."""

    def broken(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if INSERT in sql.replace("`", '"'):
            raise OperationalError("no room")
        return execute(sql, *rest)

    def work() -> None:
        with transaction.atomic():
            Author.objects.create(name="Ada")
            publish("build", 1)
            with connection.execute_wrapper(broken), pytest.raises(OperationalError), transaction.atomic():
                pass
            Author.objects.create(name="Grace")

    with pytest.raises(transaction.TransactionManagementError):
        work()
    assert (authors(), texts()) == (0, [])


def test_a_transaction_that_is_broken_writes_nothing_and_publishes_nothing() -> None:
    author = Author.objects.create(name="Ada")

    def work() -> None:
        with transaction.atomic():
            publish("build", "phantom")
            with suppress(IntegrityError):
                Author.objects.create(pk=author.pk, name="Twin")
            raise Doomed

    with statements(INSERT) as seen, suppress(Doomed):
        work()
    assert (seen, texts()) == ([], [])


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits that nobody is told of before."""
    monkeypatch.setattr(Ending, "_commit", lambda self: self._replaced["commit"][1]())


@pytest.mark.usefixtures("untold")
def test_after_a_commit_that_nobody_is_told_of_before_it_is_written_nevertheless() -> None:
    with capture_events() as seen:
        with transaction.atomic():
            publish("build", 1)
            with rolled_back():
                publish("build", "phantom")
            publish("build", 2)
        assert [event.data for event in seen] == [1, 2]
    assert texts() == [1, 2]


@pytest.mark.usefixtures("untold")
def test_what_can_t_be_written_after_such_a_commit_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        failing(monkeypatch, DatabaseError("no room")),
        caplog.at_level(logging.ERROR, "livefeed"),
        transaction.atomic(),
    ):
        publish("build", "secret payload")
    assert "Publishing on build failed after a commit" in caplog.text
    assert "secret payload" not in caplog.text
    assert not StoredEvent.objects.exists()


# -- with what a site does to its connection --------------------------------------------------------------------------


def test_a_site_s_own_wrappers_stay_as_they_are() -> None:
    def pass_on(execute: Callable[..., Any], *call: Any) -> Any:
        return execute(*call)

    with transaction.atomic():
        with connection.execute_wrapper(pass_on):
            publish("build", 1)
            assert connection.execute_wrappers[-1] is pass_on
        assert pass_on not in connection.execute_wrappers
    assert connection.execute_wrappers == []
    assert texts() == [1]


def test_a_site_that_sets_its_wrappers_anew_is_no_reason_to_fail() -> None:
    with transaction.atomic():
        publish("build", 1)
        connection.execute_wrappers = []
    assert texts() == [1]


def test_nothing_of_ours_stays_on_a_connection_and_what_a_site_put_there_does(monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = vars(connections["default"])
    calls: list[str] = []

    def noted() -> None:
        calls.append("noted")
        commit()

    def work() -> None:
        with transaction.atomic():
            publish("build", 1)

    with transaction.atomic():
        publish("build", 1)
        commit, connection.commit = connection.commit, noted  # type: ignore[method-assign]
    work()
    assert calls
    assert attributes["commit"] is noted
    del attributes["commit"]  # and with it what stands below
    with failing(monkeypatch, OperationalError("no room")), pytest.raises(OperationalError):
        work()  # told before its commit all the same
    assert not {"commit", "rollback", "close"} & attributes.keys()
    assert texts() == [1, 1]


@pytest.mark.django_db
def test_in_a_test_case_the_callbacks_that_are_captured_write_and_publish_what_came_before_them_too(
    django_capture_on_commit_callbacks: Any,
) -> None:
    publish("build", "set up")
    with capture_events() as seen:
        with django_capture_on_commit_callbacks(execute=True) as callbacks:
            publish("build", 1)
            publish("build", 2)
        assert len(callbacks) == 2
        assert [event.data for event in seen] == ["set up", 1, 2]
