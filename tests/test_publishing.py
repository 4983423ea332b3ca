from __future__ import annotations

import itertools
import logging
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, OperationalError, connection, connections, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import livefeed
from livefeed import Event, apublish, event_published, live_event, publish
from livefeed.events import Stretch
from livefeed.exceptions import InvalidData, InvalidTopic, InvalidType, WrongContext
from livefeed.history import get_history
from livefeed.history.database import DatabaseHistory
from livefeed.models import StoredEvent
from livefeed.testing import capture_events

from .processes import run
from .testapp.models import Article, Author, Task
from .writing import Doomed, database_url, in_thread, look, rolled_back, statements, stored, told

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["database.DatabaseHistory", "memory.MemoryHistory"])
def any_history(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.LIVEFEED_HISTORY = f"livefeed.history.{request.param}"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Stretch]:
    """What is handed to the broker."""
    stretches: list[Stretch] = []
    monkeypatch.setattr("livefeed.broker.send", stretches.append)
    return stretches


@pytest.fixture
def drains(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The topics of each call that numbers."""
    calls: list[list[str]] = []
    number = DatabaseHistory.number

    def spy(self: DatabaseHistory, topics: Any) -> Any:
        calls.append(sorted(topics))
        return number(self, topics)

    monkeypatch.setattr(DatabaseHistory, "number", spy)
    return calls


class Manual:
    """``set_autocommit(False)`` for a while."""

    def __enter__(self) -> None:
        transaction.set_autocommit(False)

    def __exit__(self, *args: object) -> None:
        transaction.rollback()
        transaction.set_autocommit(True)


# -- the door -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_history")
def test_an_event_that_is_published_outside_of_a_transaction_is_numbered_at_once() -> None:
    event = publish("build:42", {"percent": 70}, type="progress")
    (kept,) = stored("build:42")
    assert (kept.seq, kept.topic, kept.type, kept.data) == (1, "build:42", "progress", {"percent": 70})
    assert (event.id, event.created_at, event.topic, event.type) == (kept.id, kept.created_at, kept.topic, kept.type)


def test_data_may_be_left_out_and_the_type_is_message() -> None:
    publish("build")
    publish("build", 0)
    publish("build", "text")
    assert told("build") == [("message", None), ("message", 0), ("message", "text")]


def test_all_but_topic_and_data_is_given_by_name() -> None:
    with pytest.raises(TypeError):
        publish("build", 1, "progress")  # type: ignore[misc]


REFUSALS = [
    pytest.param({"topic": "two words"}, InvalidTopic, id="topic"),
    pytest.param({"type": "livefeed-open"}, InvalidType, id="reserved type"),
    pytest.param({"type": "two words"}, InvalidType, id="malformed type"),
    pytest.param({"data": object()}, InvalidData, id="no JSON"),
    pytest.param({"data": "x" * 300_000}, InvalidData, id="too large"),
]


@pytest.mark.parametrize("store", [True, False], ids=["stored", "fleeting"])
@pytest.mark.parametrize(("wrong", "error"), REFUSALS)
def test_what_is_wrong_is_refused_at_the_caller_and_nothing_is_written(
    wrong: dict[str, Any], error: type[Exception], store: bool, sent: list[Stretch]
) -> None:
    given = {"topic": "build", "data": 1, "type": "message", **wrong}
    with transaction.atomic():
        with pytest.raises(error):
            publish(given["topic"], given["data"], type=given["type"], store=store)
        publish("build", "fine")
    assert [event.data for event in stored("build")] == ["fine"]
    assert len(sent) == 1


@pytest.mark.parametrize(("wrong", "error"), REFUSALS)
def test_the_signal_refuses_what_publish_refuses(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        live_event.send(sender=None, **{"topic": "build", **wrong})
    assert stored("build") == []


def test_the_signal_publishes_what_it_is_sent() -> None:
    live_event.send(sender=Article, topic="build:42", type="progress", data={"percent": 70})
    live_event.send(sender=Article, topic="build:42")
    assert told("build:42") == [("progress", {"percent": 70}), ("message", None)]


# -- transactions ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_history")
def test_nothing_is_seen_before_the_commit_and_everything_after_it_in_order(sent: list[Stretch]) -> None:
    with capture_events() as seen:
        with transaction.atomic():
            for number in range(3):
                publish("build", number)
            assert (stored("build"), seen, sent) == ([], [], [])
        assert [(event.seq, event.data) for event in seen] == [(1, 0), (2, 1), (3, 2)]
    assert seen == stored("build")
    assert [event for stretch in sent for event in stretch.events] == seen


@pytest.mark.usefixtures("any_history")
def test_a_rolled_back_transaction_publishes_nothing(sent: list[Stretch]) -> None:
    with rolled_back():
        publish("build", "phantom")
        publish("build", "phantom", store=False)
    publish("build", "real")
    assert [event.data for event in stored("build")] == ["real"]
    assert [event.data for stretch in sent for event in stretch.events] == ["real"]


@pytest.mark.usefixtures("any_history")
def test_a_transaction_that_is_set_to_roll_back_publishes_nothing(sent: list[Stretch]) -> None:
    with transaction.atomic():
        publish("build", "phantom")
        transaction.set_rollback(True)
    assert (stored("build"), sent) == ([], [])


@pytest.mark.usefixtures("any_history")
def test_a_rolled_back_savepoint_publishes_nothing_while_the_rest_does(sent: list[Stretch]) -> None:
    with transaction.atomic():
        publish("build", "before")
        with rolled_back():
            publish("build", "phantom")
            publish("build", "fleeting phantom", store=False)
            with transaction.atomic():
                publish("build", "phantom in a savepoint that was kept")
        publish("build", "after")
    assert [event.data for event in stored("build")] == ["before", "after"]
    assert [event.data for stretch in sent for event in stretch.events] == ["before", "after"]


@pytest.mark.usefixtures("any_history")
def test_a_savepoint_that_is_kept_publishes(sent: list[Stretch]) -> None:
    with transaction.atomic():
        with transaction.atomic():
            publish("build", "one")
            with rolled_back():
                publish("build", "phantom")
        with transaction.atomic():
            publish("build", "two")
        assert sent == []
    assert [event.data for event in stored("build")] == ["one", "two"]


def test_a_savepoint_made_by_hand_and_rolled_back_publishes_nothing() -> None:
    with transaction.atomic():
        publish("build", "one")
        savepoint = getattr(transaction, "savepoint_create", transaction.savepoint)()  # its name since Django 6.1
        publish("build", "phantom")
        transaction.savepoint_rollback(savepoint)
        publish("build", "two")
    assert [event.data for event in stored("build")] == ["one", "two"]


@pytest.mark.usefixtures("any_history")
def test_a_savepoint_that_fails_in_the_database_publishes_nothing() -> None:
    author = Author.objects.create(name="Ada")
    with transaction.atomic():
        publish("build", "one")
        with suppress(IntegrityError), transaction.atomic():
            publish("build", "phantom")
            Author.objects.create(pk=author.pk, name="Twin")
        publish("build", "two")
    assert [event.data for event in stored("build")] == ["one", "two"]


@pytest.mark.usefixtures("any_history")
def test_transactions_after_one_that_rolled_back_publish_what_they_have() -> None:
    for number in range(6):
        try:
            with transaction.atomic():
                publish("build", number)
                if number % 2:
                    raise Doomed
        except Doomed:
            pass
    assert [event.data for event in stored("build")] == [0, 2, 4]


@pytest.mark.usefixtures("any_history")
def test_stored_and_fleeting_events_of_one_transaction_are_told_after_the_commit(sent: list[Stretch]) -> None:
    with transaction.atomic():
        publish("build", "kept")
        publish("build", "gone", store=False)
    assert [event.data for event in stored("build")] == ["kept"]
    assert [(stretch.epoch == "", [event.data for event in stretch.events]) for stretch in sent] == [
        (False, ["kept"]),
        (True, ["gone"]),
    ]


def test_a_thousand_events_in_one_transaction_are_one_drain(drains: list[list[str]]) -> None:
    with statements('UPDATE "livefeed_topic"') as numbering:
        with transaction.atomic():
            for number in range(1000):
                publish("build", number)
        assert len(numbering) <= 3
    assert drains == [["build"]]
    assert [event.data for event in stored("build")] == list(range(1000))


def test_a_thousand_saves_in_one_transaction_are_one_drain(drains: list[list[str]]) -> None:
    with transaction.atomic():
        for number in range(1000):
            Author.objects.create(name="no feed")
            Article(title=str(number)).save()
    assert drains == [["detail", "testapp.article"]]
    assert [event.data["title"] for event in stored("testapp.article")] == [str(number) for number in range(1000)]


def test_a_thousand_saves_each_in_a_savepoint_of_its_own_are_one_drain(drains: list[list[str]]) -> None:
    with transaction.atomic():
        for number in range(1000):
            with transaction.atomic():
                Task(title=str(number)).save()
    assert drains == [["testapp.task"]]
    assert [event.data["title"] for event in stored("testapp.task")] == [str(number) for number in range(1000)]


#: What happens in a transaction: None publishes; a block is a savepoint, rolled back or kept, with what happens in it.
steps = st.recursive(st.none(), lambda inner: st.tuples(st.booleans(), st.lists(inner, max_size=4)), max_leaves=12)


@pytest.mark.usefixtures("any_history")
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(blocks=st.lists(st.tuples(st.booleans(), st.lists(steps, max_size=5)), min_size=1, max_size=3))
def test_whatever_is_nested_in_whatever_just_what_was_kept_is_published_in_order(blocks: list[Any]) -> None:
    serial = itertools.count()
    topic = f"build:{uuid.uuid4().hex}"

    def play(step: Any) -> list[int]:
        """Do a step; return what it should have published."""
        if step is None:
            number = next(serial)
            publish(topic, number)
            return [number]
        rolls_back, inner = step
        with rolled_back() if rolls_back else transaction.atomic():
            kept = [number for one in inner for number in play(one)]
        return [] if rolls_back else kept

    expected = [number for block in blocks for number in play(block)]
    assert [event.data for event in stored(topic)] == expected


@pytest.mark.usefixtures("any_history")
def test_the_drain_of_a_commit_is_not_lost_when_the_first_savepoint_rolled_back() -> None:
    with transaction.atomic():
        with rolled_back():
            publish("build", "phantom")
        with transaction.atomic():
            publish("build", "real")
    assert [event.data for event in stored("build")] == ["real"]


@pytest.mark.usefixtures("any_history")
def test_what_is_published_after_a_commit_hook_ran_is_published_too() -> None:
    with transaction.atomic():
        publish("build", "one")
        transaction.on_commit(lambda: publish("build", "three") and None)
        publish("build", "two")
    assert [event.data for event in stored("build")] == ["one", "two", "three"]


@pytest.mark.usefixtures("any_history")
def test_a_transaction_inside_a_commit_hook_is_a_transaction_of_its_own() -> None:
    def hook() -> None:
        with transaction.atomic():
            publish("build", "two")
        with rolled_back():
            publish("build", "phantom")

    with transaction.atomic():
        transaction.on_commit(hook)
        publish("build", "one")
    assert sorted(event.data for event in stored("build")) == ["one", "two"]


def test_a_commit_hook_of_the_site_that_fails_leaves_the_event_to_the_next_look() -> None:
    def hook() -> None:
        raise Doomed

    def commit() -> None:
        with transaction.atomic():
            transaction.on_commit(hook)
            publish("build", "one")

    with pytest.raises(Doomed):
        commit()
    assert stored("build") == []
    look()
    assert [event.data for event in stored("build")] == ["one"]


def test_an_event_is_not_lost_with_a_transaction_that_another_one_interrupts() -> None:
    """Each connection, so each thread, settles its own debts."""
    with transaction.atomic():
        if connection.vendor != "sqlite":
            publish("build", "mine")
        in_thread(lambda: publish("build", "the other's"))
        if connection.vendor == "sqlite":
            publish("build", "mine")
    assert [event.data for event in stored("build")] == ["the other's", "mine"]


@pytest.mark.django_db
def test_in_a_test_case_that_never_commits_captured_callbacks_publish(
    django_capture_on_commit_callbacks: Any,
) -> None:
    with capture_events() as seen:
        for number in range(2):
            with django_capture_on_commit_callbacks(execute=True):
                publish("build", number)
                publish("build", number)
        assert [(event.seq, event.data) for event in seen] == [(1, 0), (2, 0), (3, 1), (4, 1)]


# -- manual transactions --------------------------------------------------------------------------------------------


def test_without_autocommit_an_event_is_part_of_the_transaction_and_numbered_by_a_look() -> None:
    with Manual():
        publish("build", "phantom")
        transaction.rollback()
        publish("build", "real")
        transaction.commit()
    assert stored("build") == []
    look()
    assert [event.data for event in stored("build")] == ["real"]


def test_without_autocommit_a_model_s_event_is_part_of_the_transaction_and_numbered_by_a_look() -> None:
    with Manual():
        Article.objects.create(title="phantom")
        transaction.rollback()
        Article.objects.create(title="real")
        transaction.commit()
    look()
    assert [event.data["title"] for event in stored("testapp.article")] == ["real"]


def test_without_autocommit_the_next_publisher_numbers_what_was_left() -> None:
    with Manual():
        publish("build", "one")
        transaction.commit()
    publish("build", "two")
    assert [event.data for event in stored("build")] == ["one", "two"]


def test_without_autocommit_a_transaction_block_does_not_make_it_a_commit() -> None:
    with Manual():
        Author.objects.create(name="begins the transaction")
        with transaction.atomic():
            publish("build", "phantom")
        transaction.rollback()
        Author.objects.create(name="begins another one")
        with transaction.atomic():
            publish("build", "real")
        assert stored("build") == []
        transaction.commit()
    look()
    assert [event.data for event in stored("build")] == ["real"]


def test_without_autocommit_what_can_only_be_sent_after_the_commit_is_refused(sent: list[Stretch]) -> None:
    with Manual(), pytest.raises(WrongContext, match=r"manual transaction management.*transaction\.atomic\(\)"):
        publish("build", "gone", store=False)
    assert sent == []


# -- what fails after the commit harms nobody -----------------------------------------------------------------------


def test_a_numbering_that_fails_does_not_fail_the_writer_and_a_look_does_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: DatabaseHistory, topics: Any) -> Any:
        raise OperationalError("the database went away")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "livefeed"):
        patch.setattr(DatabaseHistory, "number", fails)
        with transaction.atomic():
            publish("build", "secret payload")
    assert "Numbering after a commit failed" in caplog.text
    assert "secret payload" not in caplog.text
    look()
    assert [event.data for event in stored("build")] == ["secret payload"]


def test_an_observer_that_fails_harms_neither_the_writer_nor_other_observers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(**kwargs: Any) -> None:
        raise Doomed

    event_published.connect(fails)
    try:
        with capture_events() as seen, caplog.at_level(logging.ERROR, "livefeed"):
            publish("build", "one")
            with transaction.atomic():
                publish("build", "two")
    finally:
        event_published.disconnect(fails)
    assert [event.data for event in seen] == ["one", "two"]
    assert [event.data for event in stored("build")] == ["one", "two"]
    assert "event_published" in caplog.text


def test_an_observer_gets_the_numbered_event_outside_of_the_transaction() -> None:
    seen: list[tuple[Any, Any, bool]] = []

    def observer(*, sender: Any, event: Event, **kwargs: Any) -> None:
        seen.append((sender, event.seq, connection.in_atomic_block))

    event_published.connect(observer)
    try:
        publish("build")
        with transaction.atomic():
            publish("build")
    finally:
        event_published.disconnect(observer)
    assert seen == [(Event, 1, False), (Event, 2, False)]


def test_an_observer_may_publish() -> None:
    def echo(*, event: Event, **kwargs: Any) -> None:
        if event.topic == "build":
            publish("echo", event.data)

    event_published.connect(echo)
    try:
        with transaction.atomic():
            publish("build", 1)
        publish("build", 2)
    finally:
        event_published.disconnect(echo)
    assert [event.data for event in stored("echo")] == [1, 2]


def test_an_append_that_fails_outside_of_a_transaction_is_the_caller_s_to_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: DatabaseHistory, events: Any) -> Any:
        raise DatabaseError("no such table")

    monkeypatch.setattr(DatabaseHistory, "append", fails)
    with pytest.raises(DatabaseError):
        publish("build", 1)


# -- fleeting events ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_history")
def test_a_fleeting_event_is_sent_and_not_kept(sent: list[Stretch]) -> None:
    event = publish("chat", {"typing": "Ada"}, type="typing", store=False)
    assert sent == [Stretch("chat", "", (event,))]
    assert event.seq is None
    assert stored("chat") == []
    assert get_history().heads(["chat"]) == {}
    assert not StoredEvent.objects.exists()


def test_fleeting_events_over_the_signal_are_fleeting(sent: list[Stretch]) -> None:
    live_event.send(sender=None, topic="chat", data=1, store=False)
    assert [stretch.epoch for stretch in sent] == [""]
    assert stored("chat") == []


# -- from where ever one publishes ----------------------------------------------------------------------------------


@pytest.fixture
async def own_connections() -> Any:
    yield
    await sync_to_async(connections.close_all)()


async def refused(call: Callable[[], object]) -> None:
    with pytest.raises(WrongContext, match=r"publish\(\) would block the event loop .* await apublish"):
        call()


@pytest.mark.usefixtures("own_connections")
async def test_in_a_running_event_loop_publish_says_what_to_use_instead() -> None:
    await refused(lambda: publish("build", 1))
    await refused(lambda: publish("build", 1, store=False))
    await refused(lambda: live_event.send(sender=None, topic="build"))
    assert await sync_to_async(stored)("build") == []


@pytest.mark.usefixtures("own_connections", "any_history")
async def test_the_async_twin_publishes_the_same(sent: list[Stretch]) -> None:
    event = await apublish("build:42", {"percent": 70}, type="progress")
    await apublish("build:42", store=False)
    (kept,) = await sync_to_async(stored)("build:42")
    assert (kept.id, kept.seq, kept.type, kept.data) == (event.id, 1, "progress", {"percent": 70})
    assert [stretch.epoch == "" for stretch in sent] == [False, True]


@pytest.mark.usefixtures("own_connections")
@pytest.mark.parametrize(("wrong", "error"), REFUSALS)
async def test_the_async_twin_refuses_the_same(wrong: dict[str, Any], error: type[Exception]) -> None:
    given = {"topic": "build", "data": 1, "type": "message", **wrong}
    with pytest.raises(error):
        await apublish(given["topic"], given["data"], type=given["type"])


@pytest.mark.usefixtures("own_connections")
async def test_the_signal_may_be_sent_from_async_code() -> None:
    await live_event.asend(sender=None, topic="build", type="progress", data=70)
    assert await sync_to_async(told)("build") == [("progress", 70)]


@pytest.mark.usefixtures("own_connections")
async def test_sync_code_that_async_code_calls_publishes_in_its_transaction() -> None:
    @sync_to_async
    def work() -> None:
        with transaction.atomic():
            publish("build", 1)
            assert stored("build") == []

    await work()
    assert await sync_to_async(told)("build") == [("message", 1)]


def test_a_thread_of_its_own_publishes() -> None:
    in_thread(lambda: publish("build", "from a thread"))
    assert [event.data for event in stored("build")] == ["from a thread"]


WRITER = """
import django
django.setup()
from django.db import transaction
from livefeed import publish
from tests.testapp.models import Article

publish("build", "from a command")
Article.objects.create(title="from a command")
with transaction.atomic():
    publish("build", "in a transaction")
"""


def test_another_process_publishes() -> None:
    publish("build", "here")
    env = {"LIVEFEED_TEST_DATABASE": database_url(), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    run([sys.executable, "-W", "error", "-c", WRITER], env=env, limit=60)
    assert [event.data for event in stored("build")] == ["here", "from a command", "in a transaction"]
    assert [event.data["title"] for event in stored("testapp.article")] == ["from a command"]


DEATH = """
import os, django
django.setup()
from django.db import transaction
from livefeed import publish

with transaction.atomic():
    transaction.on_commit(lambda: os._exit(7))
    publish("build", "last words")
"""


def test_a_process_that_dies_right_after_its_commit_loses_nothing() -> None:
    env = {"LIVEFEED_TEST_DATABASE": database_url(), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    with pytest.raises(RuntimeError, match="ended with 7"):
        run([sys.executable, "-c", DEATH], env=env, limit=60)
    assert stored("build") == []
    _, seen = get_history().leftovers(frozenset())
    (stretch,), _ = get_history().leftovers(seen)
    assert [event.data for event in stretch.events] == ["last words"]


def test_what_users_import_is_all_there() -> None:
    assert set(livefeed.__all__) >= {"LiveFeed", "LiveModel", "apublish", "cursor", "event_published", "live_event"}
    assert all(hasattr(livefeed, name) for name in livefeed.__all__)
