"""One contract that every history passes, then what the database history promises beyond it."""

from __future__ import annotations

import datetime
import itertools
import re
import time
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import livefeed
from livefeed import Event, publish
from livefeed.cursors import parse_cursor
from livefeed.events import new_event
from livefeed.exceptions import InvalidTopic
from livefeed.history import History, get_history
from livefeed.history.database import DatabaseHistory
from livefeed.history.memory import MemoryHistory
from livefeed.models import StoredEvent, StoredTopic
from livefeed.registry import registry
from livefeed.testing import HistoryContract

from .writing import Doomed, at_once, in_thread, statements, stored

pytestmark = pytest.mark.django_db(transaction=True)


#: Rows per statement, where a test is about several statements.
BATCH = 20


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livefeed.history.database.BATCH", BATCH)


def some(topic: str, count: int, *, first: int = 1) -> list[Event]:
    return [new_event(topic, {"n": number}, "tick") for number in range(first, first + count)]


def numbers(events: Any) -> list[int]:
    return [event.data["n"] for event in events]


# -- the contract ---------------------------------------------------------------------------------------------------


class TestDatabaseHistory(HistoryContract):
    many = 2 * BATCH + 3

    @pytest.fixture(autouse=True)
    def _small_batches(self, small_batches: None) -> None:
        pass

    def make_history(self) -> History:
        return DatabaseHistory()

    def age(self, topic: str, seconds: float) -> None:
        passed = datetime.timedelta(seconds=seconds)
        StoredEvent.objects.filter(topic=topic).update(numbered_at=F("numbered_at") - passed)
        StoredTopic.objects.filter(name=topic).update(trim_at=F("trim_at") - passed)


class TestMemoryHistory(HistoryContract):
    many = 100

    def make_history(self) -> History:
        return MemoryHistory()

    def age(self, topic: str, seconds: float) -> None:
        stored_topic = self.history._topics[topic]  # type: ignore[attr-defined]
        stored_topic.numbered_at = [moment - seconds for moment in stored_topic.numbered_at]


def test_the_contract_holds_for_the_unittest_case_of_the_documentation() -> None:
    page = (Path(__file__).parent.parent / "docs" / "testing.md").read_text()
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "HistoryContract" in text)
    namespace: dict[str, Any] = {"__name__": "documentation"}
    exec(compile(block, "testing.md", "exec"), namespace)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(namespace["MemoryHistoryTests"])
    assert suite.countTestCases() > 30
    result = unittest.TestResult()
    suite.run(result)
    assert result.wasSuccessful(), result.errors + result.failures


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.integers(0, 6)), max_size=8))
def test_whatever_is_appended_and_trimmed_in_memory_reads_without_a_hole(
    settings: Any, steps: list[tuple[str, int, int]]
) -> None:
    history, given = MemoryHistory(), dict[str, list[str]]()
    for topic, count, keep in steps:
        events = some(topic, count)
        given.setdefault(topic, []).extend(event.id for event in events)
        history.append(events)
        settings.LIVEFEED_RETENTION_EVENTS = keep
        history.trim(registry.retention)
        for name, ids in given.items():
            head = history.heads([name])[name]
            rest = history.read(name, head.floor, 1000).events
            assert [event.id for event in rest] == ids[head.floor :]
            assert [event.seq for event in rest] == list(range(head.floor + 1, head.seq + 1))


def test_time_in_memory_is_no_wall_clock(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LIVEFEED_RETENTION = 3600.0
    history = MemoryHistory()
    history.append(some("build", 2))
    late = time.monotonic() + 3601
    monkeypatch.setattr("livefeed.history.memory.time", SimpleNamespace(monotonic=lambda: late))
    assert history.trim(registry.retention) == 2


# -- which history --------------------------------------------------------------------------------------------------


def test_by_default_the_history_is_the_database_and_there_is_one_of_it() -> None:
    assert isinstance(get_history(), DatabaseHistory)
    assert get_history() is get_history()


def test_a_setting_names_the_history(settings: Any) -> None:
    settings.LIVEFEED_HISTORY = "livefeed.history.memory.MemoryHistory"
    memory = get_history()
    assert isinstance(memory, MemoryHistory)
    assert get_history() is memory


@pytest.mark.parametrize("path", ["no.such.History", "livefeed.models.StoredEvent", "nonsense"])
def test_a_setting_that_names_no_history_is_refused_with_its_value(settings: Any, path: str) -> None:
    settings.LIVEFEED_HISTORY = path
    with pytest.raises(ImproperlyConfigured, match=path) as caught:
        get_history()
    assert "LIVEFEED_HISTORY" in str(caught.value)


# -- cursors of topics as they stand --------------------------------------------------------------------------------


def test_a_cursor_says_where_each_topic_stands() -> None:
    publish("one", 1)
    publish("one", 2)
    cursor = parse_cursor(livefeed.cursor("one", "two"))
    head = get_history().heads(["one"])["one"]
    assert cursor.positions("one") == [(head.epoch, 2)]
    assert cursor.positions("two") == [("", 0)]
    assert cursor.positions("three") == []


async def test_the_async_cursor_is_the_same() -> None:
    await livefeed.apublish("one", 1)
    assert await livefeed.acursor("one", "two") == await sync_to_async(livefeed.cursor)("one", "two")
    await sync_to_async(connections.close_all)()


def test_a_cursor_of_a_malformed_topic_is_refused() -> None:
    with pytest.raises(InvalidTopic):
        livefeed.cursor("two words")


# -- commands -------------------------------------------------------------------------------------------------------


def test_livefeed_prune_says_what_it_removed(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.LIVEFEED_RETENTION_EVENTS = 2
    for number in range(5):
        publish("build", number)
    call_command("livefeed_prune")
    assert "3 events" in capsys.readouterr().out
    assert get_history().heads(["build"])["build"].floor == 3


def test_livefeed_new_epoch_makes_older_cursors_worthless(capsys: pytest.CaptureFixture[str]) -> None:
    publish("one", 1)
    publish("two", 1)
    before = livefeed.cursor("one"), livefeed.cursor("two")
    call_command("livefeed_new_epoch", "one")
    assert capsys.readouterr().out.startswith("1 ")
    assert livefeed.cursor("one") != before[0]
    assert livefeed.cursor("two") == before[1]
    call_command("livefeed_new_epoch")
    assert livefeed.cursor("two") != before[1]


def test_livefeed_new_epoch_refuses_a_malformed_topic() -> None:
    with pytest.raises(CommandError, match="two words"):
        call_command("livefeed_new_epoch", "two words")


# -- the database history -------------------------------------------------------------------------------------------


@pytest.fixture
def database() -> DatabaseHistory:
    return DatabaseHistory()


def test_recorded_events_have_no_number_until_they_are_numbered_in_the_order_of_insertion(
    database: DatabaseHistory,
) -> None:
    with transaction.atomic():
        database.record(some("build", 2))
        database.record(some("build", 1, first=3))
    assert database.read("build", 0, 10).events == ()
    (stretch,) = database.number(["build"])
    assert numbers(stretch.events) == [1, 2, 3]
    assert [event.seq for event in stretch.events] == [1, 2, 3]
    assert numbers(database.read("build", 0, 10).events) == [1, 2, 3]
    assert database.number(["build"]) == []


def test_recording_only_inserts(database: DatabaseHistory) -> None:
    with statements("livefeed_") as seen, transaction.atomic():
        database.record(some("build", 5))
    assert len(seen) == 1
    assert seen[0].startswith('INSERT INTO "livefeed_event"')


def test_whoever_numbers_numbers_what_others_left(database: DatabaseHistory) -> None:
    in_thread(lambda: database.record(some("build", 2)))
    (stretch,) = database.append(some("build", 1, first=3))
    assert numbers(stretch.events) == [1, 2, 3]


def test_keys_with_gaps_between_them_are_numbered_without_a_hole(database: DatabaseHistory) -> None:
    for number in range(1, 6):
        database.record([*some("build", 1, first=number), *some("noise", number % 3)])
    (stretch,) = database.number(["build"])
    assert [event.seq for event in stretch.events] == [1, 2, 3, 4, 5]
    assert numbers(database.read("build", 0, 10).events) == [1, 2, 3, 4, 5]


def test_a_publisher_that_died_after_its_commit_is_helped_at_the_second_look(database: DatabaseHistory) -> None:
    with transaction.atomic():
        database.record([*some("one", 2), *some("two", 1)])
    stretches, seen = database.leftovers(frozenset())
    assert stretches == []
    assert len(seen) == 3
    stretches, seen = database.leftovers(seen)
    assert {stretch.topic: numbers(stretch.events) for stretch in stretches} == {"one": [1, 2], "two": [1]}
    stretches, seen = database.leftovers(seen)
    assert (stretches, seen) == ([], frozenset())
    assert [event.seq for event in stored("one")] == [1, 2]


def test_a_fresh_event_is_not_taken_for_a_leftover_because_another_one_is(database: DatabaseHistory) -> None:
    database.record(some("old", 1))
    _, seen = database.leftovers(frozenset())
    database.record(some("fresh", 1))
    stretches, seen = database.leftovers(seen)
    assert [stretch.topic for stretch in stretches] == ["old"]
    stretches, _ = database.leftovers(seen)
    assert [stretch.topic for stretch in stretches] == ["fresh"]


@pytest.mark.usefixtures("small_batches")
def test_any_number_of_leftovers_is_numbered_in_the_end(database: DatabaseHistory) -> None:
    topics = [f"build:{number}" for number in range(BATCH + 5)]
    database.record([event for topic in topics for event in some(topic, 1)])
    seen: frozenset[int] = frozenset()
    for _ in range(5):
        _, seen = database.leftovers(seen)
    assert set(database.heads(topics)) == set(topics)
    assert seen == frozenset()


def test_an_event_of_a_two_hour_transaction_survives_a_retention_of_one_hour(
    database: DatabaseHistory, settings: Any
) -> None:
    settings.LIVEFEED_RETENTION = 3600.0
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
    database.record([Event("build", "message", "1", created_at=began)])
    database.number(["build"])
    assert database.trim(registry.retention) == 0
    (event,) = stored("build")
    assert event.created_at == began


def test_what_is_not_numbered_yet_is_never_trimmed(database: DatabaseHistory, settings: Any) -> None:
    settings.LIVEFEED_RETENTION = 3600.0
    settings.LIVEFEED_RETENTION_EVENTS = 1
    database.append(some("build", 3))
    database.record(some("build", 2, first=4))
    assert database.trim(registry.retention) == 2
    database.number(["build"])
    assert numbers(database.read("build", 0, 10).events) == [3, 4, 5]


def test_a_floor_is_stored_in_the_transaction_that_trims(database: DatabaseHistory, settings: Any) -> None:
    settings.LIVEFEED_RETENTION_EVENTS = 1
    database.append(some("build", 5))

    def dies(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        outcome = execute(sql, params, many, context)
        if sql.startswith("DELETE"):
            raise Doomed
        return outcome

    with pytest.raises(Doomed), connection.execute_wrapper(dies):
        database.trim(registry.retention)
    assert database.heads(["build"])["build"].floor == 0
    assert numbers(database.read("build", 0, 10).events) == [1, 2, 3, 4, 5]


def test_a_topic_that_moved_during_a_long_pause_between_two_looks_is_named(database: DatabaseHistory) -> None:
    """The first look finds nothing that moved; the second comes late, because the database or the loop was away."""
    _, marker = database.moved(None)
    database.append(some("build", 1))
    StoredTopic.objects.update(moved_at=Now() - datetime.timedelta(seconds=30))
    moved, _ = database.moved(marker)
    assert "build" in moved


def test_a_topic_that_moved_during_a_long_pause_is_named_on_a_site_that_was_quiet_before(
    database: DatabaseHistory,
) -> None:
    database.append(some("ancient", 1))
    StoredTopic.objects.update(moved_at=Now() - datetime.timedelta(hours=1))
    _, marker = database.moved(None)
    database.append(some("build", 1))
    StoredTopic.objects.filter(name="build").update(moved_at=Now() - datetime.timedelta(seconds=30))
    moved, _ = database.moved(marker)
    assert "build" in moved


def test_a_look_names_no_topic_that_rested_for_long(database: DatabaseHistory) -> None:
    database.append(some("ancient", 1))
    StoredTopic.objects.update(moved_at=Now() - datetime.timedelta(hours=1))
    database.append(some("build", 1))
    _, marker = database.moved(None)
    moved, _ = database.moved(marker)
    assert set(moved) == {"build"}


def test_times_are_kept_where_a_site_has_no_time_zones(database: DatabaseHistory, settings: Any) -> None:
    settings.USE_TZ = False
    settings.TIME_ZONE = "Asia/Tokyo"
    moment = datetime.datetime(2025, 1, 2, 3, 4, 5, 678_901, datetime.UTC)
    database.append([Event("build", "message", "1", created_at=moment)])
    (event,) = database.read("build", 0, 10).events
    assert event.created_at == moment
    assert event.created_at.tzinfo is datetime.UTC
    settings.LIVEFEED_RETENTION = 3600.0
    assert database.trim(registry.retention) == 0
    _, marker = database.moved(None)
    database.append(some("two", 1))
    moved, _ = database.moved(marker)
    assert "two" in moved


@pytest.mark.parametrize("use_tz", [True, False])
def test_what_is_recorded_together_reads_as_it_was_published(
    database: DatabaseHistory, settings: Any, use_tz: bool
) -> None:
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Tokyo"
    texts = ["plain", 'a "quoted" \\ text', "Grüße \u2028 🎉 \0", "%s %(topic)s {}", "null", "x" * 10_000]
    moment = datetime.datetime(2025, 1, 2, 3, 4, 5, 678_901, datetime.UTC)
    events = [
        replace(new_event(f"build:{number % 7}", text, "x.y:z-1"), created_at=moment)
        for number, text in enumerate(texts * 40)
    ]
    with transaction.atomic():
        database.record(events)
    for stretch in database.number({event.topic for event in events}):
        assert list(map(content, stretch.events)) == [content(each) for each in events if each.topic == stretch.topic]
    assert sum(head.seq for head in database.heads([f"build:{number}" for number in range(7)]).values()) == len(events)


def content(event: Event) -> tuple[Any, ...]:
    return event.id, event.type, event.json, event.size, event.created_at


@pytest.mark.parametrize("way", ["record", "append"])
def test_large_events_that_come_together_are_written_by_several_statements(database: DatabaseHistory, way: str) -> None:
    """MariaDB takes 16 MiB at once, and each quote counts twice there: these are 30."""
    events = [new_event("build", '"' * 120_000, "message") for _ in range(60)]
    with transaction.atomic():
        getattr(database, way)(events)
    database.number(["build"])
    assert database.heads(["build"])["build"].seq == 60


def test_a_statement_per_event_is_not_needed(database: DatabaseHistory) -> None:
    database.record(some("build", 300))
    with statements() as seen:
        database.number(["build"])
    assert len(seen) < 10


def writers_at_once(writers: int, transactions: int) -> None:
    """Let writers publish on two topics in crossing order; a third of the transactions and some savepoints fall."""

    def writer(name: int) -> Callable[[], None]:
        def write() -> None:
            counts = itertools.count()
            for turn in range(transactions):
                try:
                    with transaction.atomic():
                        for topic in ("one", "two") if name % 2 else ("two", "one"):
                            publish(topic, [name, turn, next(counts)], type="phantom" if turn % 3 == 1 else "kept")
                        try:
                            with transaction.atomic():
                                publish("one", [name, turn, next(counts)], type="phantom")
                                raise Doomed
                        except Doomed:
                            pass
                        if turn % 3 == 1:
                            raise Doomed
                except Doomed:
                    pass

        return write

    at_once([writer(name) for name in range(writers)])


def test_events_of_writers_at_once_have_no_hole_no_phantom_and_keep_each_writer_s_order() -> None:
    writers, transactions = (4, 9) if connection.vendor == "sqlite" else (8, 30)
    writers_at_once(writers, transactions)
    for topic in ("one", "two"):
        events = stored(topic)
        assert len(events) == writers * transactions * 2 // 3
        assert {event.type for event in events} == {"kept"}
        for name in range(writers):
            mine = [tuple(event.data[1:]) for event in events if event.data[0] == name]
            assert len(mine) == len(set(mine)) == transactions * 2 // 3
            assert mine == sorted(mine)
    assert not StoredEvent.objects.filter(seq=None).exists()


def stricter_modes() -> list[dict[str, Any]]:
    """Return the options of this database that make transactions stricter than Django's default."""
    if connection.vendor == "sqlite":
        return [{"transaction_mode": mode} for mode in ("IMMEDIATE", "EXCLUSIVE")]
    if connection.vendor == "mysql":
        return [{"isolation_level": level} for level in ("repeatable read", "serializable")]
    from psycopg import IsolationLevel

    return [{"isolation_level": level} for level in (IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)]


@pytest.mark.parametrize("mode", [0, 1], ids=["strict", "strictest"])
def test_the_order_holds_where_a_site_makes_its_transactions_stricter(
    mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option, value in stricter_modes()[mode].items():
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], option, value)
    writers_at_once(3, 6)
    assert len(stored("one")) == len(stored("two")) == 3 * 4


def test_a_clock_that_went_back_makes_no_look_deaf(database: DatabaseHistory) -> None:
    database.append(some("old", 1))
    StoredTopic.objects.update(moved_at=F("moved_at") + datetime.timedelta(hours=1))
    _, marker = database.moved(None)
    database.append(some("new", 1))
    moved, _ = database.moved(marker)
    assert "new" in moved


@pytest.mark.parametrize("path", ["livefeed.history", "livefeed.history.base.History"])
def test_what_is_no_class_or_an_abstract_one_is_refused_as_such(settings: Any, path: str) -> None:
    settings.LIVEFEED_HISTORY = path
    with pytest.raises(ImproperlyConfigured, match=path):
        get_history()
