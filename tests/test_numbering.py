"""The rules by which the database history numbers, each with what breaks it. What needs transactions that overlap is in
``tests/backends/test_overlapping.py``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from livefeed import Event, publish
from livefeed.events import new_event
from livefeed.history import Retention, get_history
from livefeed.history.database import DatabaseHistory
from livefeed.models import StoredEvent, StoredTopic

from .writing import at_once, in_thread, interrupted, statements, stored

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def history() -> DatabaseHistory:
    return DatabaseHistory()


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody try again who loses a race."""
    monkeypatch.setattr("livefeed.transactions.TRIES", 1)


def some(topic: str, *data: Any) -> list[Event]:
    return [new_event(topic, one, "tick") for one in data]


def data(topic: str) -> list[Any]:
    return [event.data for event in stored(topic)]


def few(topic: str) -> Retention:
    return Retention(0, 2)


WRITES: dict[str, Callable[[DatabaseHistory], object]] = {
    "number": lambda history: history.number(["build", "none"]),
    "append": lambda history: history.append(some("build", "x")),
    "append to a new topic": lambda history: history.append(some("new", "x")),
    "trim": lambda history: history.trim(few, ["build"]),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_transaction_of_ours_begins_with_a_write_or_a_lock(history: DatabaseHistory, name: str) -> None:
    """SQLite refuses a write to a transaction that has read before another one wrote: "database is locked"."""
    history.append(some("build", *range(5)))
    history.record(some("build", "late"))
    with statements() as seen:
        WRITES[name](history)
    ours = [sql for sql in seen if not sql.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "SET TRANSACTION"))]
    if name == "trim":
        assert "livefeed_topic" in ours.pop(0)  # outside of any transaction: which of these topics there are
    if connection.vendor == "postgresql" and name != "trim":
        assert "UPDATE" in ours[0]  # and all the rest, in one statement
    else:
        assert ours[0].startswith("UPDATE") or (connection.vendor != "sqlite" and ours[0].endswith("FOR UPDATE"))


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("name", WRITES)
def test_a_writer_that_comes_in_between_fails_neither_of_the_two(history: DatabaseHistory, name: str) -> None:
    """Where a transaction reads first, this interleaving makes its write fail on SQLite, every time."""
    history.append(some("build", *range(5)))
    history.record(some("build", "late"))
    with interrupted("livefeed_", lambda: in_thread(write_if_possible)):
        WRITES[name](history)
    in_thread(write_if_possible)
    assert data("other") in (["rival"], ["rival", "rival"])


def write_if_possible() -> None:
    """Publish; on SQLite, which has one writer at a time, only if nobody else is writing."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
    with suppress(OperationalError):
        publish("other", "rival")


@pytest.mark.usefixtures("once")
def test_writers_numberers_and_trimmers_at_once_never_lose_a_race(history: DatabaseHistory) -> None:
    history.append(some("build", "first"))  # two who make a topic at once may deadlock on InnoDB, and try again

    def work(name: int) -> Callable[[], None]:
        def run() -> None:
            mine = DatabaseHistory()
            for turn in range(8):
                mine.append(some("build", [name, turn]))
                mine.number(["build"])
                mine.trim(lambda topic: Retention(0, 100), ["build"])

        return run

    at_once([work(name) for name in range(4)])
    assert len(data("build")) == 33


def test_what_has_no_number_is_found_without_locking_it(history: DatabaseHistory) -> None:
    """On InnoDB a locking read would wait for every insert that is under way."""
    history.record(some("build", 1))
    history.append(some("build", 2))
    history.record(some("build", 3))
    with statements("SELECT", "livefeed_event") as seen:
        history.number(["build"])
        history.leftovers(frozenset())
    assert len(seen) == 2
    assert not [sql for sql in seen if "FOR " in sql]


def test_no_foreign_key_leads_from_an_event_to_its_topic() -> None:
    """Its key-share lock would make the numbering wait for every writer that has published and not committed."""
    with connection.cursor() as cursor:
        assert connection.introspection.get_relations(cursor, StoredEvent._meta.db_table) == {}
        assert connection.introspection.get_relations(cursor, StoredTopic._meta.db_table) == {}


def test_numbers_follow_the_insertion(history: DatabaseHistory) -> None:
    with transaction.atomic():
        history.record(some("build", 1, 2))
        history.record(some("other", 1))
        history.record(some("build", 3))
    in_thread(lambda: history.record(some("build", 4)))
    history.number(["build"])
    assert data("build") == [1, 2, 3, 4]


def test_the_next_publisher_helps_one_that_died(history: DatabaseHistory) -> None:
    in_thread(lambda: history.record(some("build", "of the dead")))
    publish("build", "mine")
    assert data("build") == ["of the dead", "mine"]


def test_a_look_helps_a_publisher_that_died_where_nobody_else_publishes(history: DatabaseHistory) -> None:
    in_thread(lambda: history.record(some("build", "of the dead")))
    _, seen = history.leftovers(frozenset())
    (stretch,), seen = history.leftovers(seen)
    assert [event.seq for event in stretch.events] == [1]
    assert data("build") == ["of the dead"]


def test_two_hubs_that_number_the_same_leftovers_at_once_make_no_double_and_no_hole(history: DatabaseHistory) -> None:
    topics = [f"build:{number}" for number in range(30)]
    history.record([event for turn in range(3) for topic in topics for event in some(topic, turn)])
    _, seen = history.leftovers(frozenset())

    def look() -> list[tuple[str, int | None]]:
        stretches, _ = DatabaseHistory().leftovers(seen)
        return [(event.topic, event.seq) for stretch in stretches for event in stretch.events]

    told = [entry for found in at_once([look, look, look]) for entry in found]
    assert sorted(told, key=str) == sorted(((topic, seq) for topic in topics for seq in (1, 2, 3)), key=str)
    for topic in topics:
        assert data(topic) == [0, 1, 2]


def test_a_hub_s_look_and_a_publisher_at_once_make_no_double_and_no_hole(history: DatabaseHistory) -> None:
    history.record(some("build", *range(10)))
    _, seen = history.leftovers(frozenset())
    at_once([lambda: history.leftovers(seen), *[lambda: publish("build", "new")] * 3])
    assert data("build") == [*range(10), "new", "new", "new"]


def test_a_publisher_that_is_overtaken_by_the_numbering_of_another_tells_of_nothing_twice() -> None:
    """Both committed before either numbered: one numbers for both, the other finds nothing left."""
    history = get_history()
    with transaction.atomic():
        history.record(some("build", 1))
    (stretch,) = history.number(["build"])
    assert [event.seq for event in stretch.events] == [1]
    assert history.number(["build"]) == []
