"""What a writer's process does while the history is away."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.db import OperationalError, transaction

from livefeed import backlog, publish
from livefeed.events import Event, Stretch, new_event
from livefeed.exceptions import HistoryUnavailable, InvalidData, InvalidTopic
from livefeed.history import get_history
from livefeed.history.database import DatabaseHistory
from livefeed.history.memory import MemoryHistory
from livefeed.publishing import emit
from livefeed.testing import capture_events

from .processes import poll, run
from .testapp.models import Article
from .writing import in_thread, stored

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

LIMIT = 20.0


class MoodyHistory(MemoryHistory):
    """A history outside of Django's databases, which is away when it is told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.refused: set[str] = set()
        self.asked_by: list[str] = []

    def append(self, events: Sequence[Event]) -> list[Stretch]:
        self.asked_by.append(threading.current_thread().name)
        if self.away or self.refused & {event.topic for event in events}:
            raise HistoryUnavailable("not now")
        return super().append(events)

    def renew_epoch(self, topics: Any = None) -> int:
        if self.away:
            raise HistoryUnavailable("not now")
        return super().renew_epoch(topics)


@pytest.fixture(autouse=True)
def own_backlog(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A backlog of the test's own, quick to try again, whose thread ends with the test."""
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(backlog, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(backlog, "_backlog", backlog.Backlog())
    yield
    monkeypatch.setattr(backlog, "SECONDS", -1.0)
    history = get_history()
    if isinstance(history, MoodyHistory):
        history.away = False
    ended()


@pytest.fixture
def moody(settings: Any) -> MoodyHistory:
    settings.LIVEFEED_HISTORY = "tests.test_backlog.MoodyHistory"
    history = get_history()
    assert isinstance(history, MoodyHistory)
    return history


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "livefeed-backlog"]


def ended() -> None:
    """Wait until nothing waits any more, and the thread is gone."""
    poll(lambda: not threads(), limit=LIMIT, what="the backlog's thread has ended")


def data(topic: str) -> list[Any]:
    return [event.data for event in stored(topic)]


# -- the writer -----------------------------------------------------------------------------------------------------


def test_a_save_succeeds_while_the_history_is_away_and_its_event_arrives_later(moody: MoodyHistory) -> None:
    moody.away = True
    with capture_events("testapp.article") as seen:
        with transaction.atomic():
            Article.objects.create(title="Hello")
        assert Article.objects.count() == 1
        assert (data("testapp.article"), seen) == ([], [])
        moody.away = False
        ended()
        assert [(event.seq, event.data["title"]) for event in seen] == [(1, "Hello")]
    assert seen == stored("testapp.article")


def test_publish_outside_of_a_transaction_does_not_fail_either(moody: MoodyHistory) -> None:
    moody.away = True
    event = publish("build", 1)
    assert backlog.waiting() == 1
    moody.away = False
    ended()
    assert [kept.id for kept in stored("build")] == [event.id]


def test_what_is_wrong_with_an_event_is_still_the_caller_s_to_know(moody: MoodyHistory) -> None:
    moody.away = True
    with pytest.raises(InvalidData):
        publish("build", object())
    with pytest.raises(InvalidTopic):
        publish("two words")
    assert backlog.waiting() == 0


def test_events_arrive_in_the_order_in_which_they_were_published(moody: MoodyHistory) -> None:
    for number in range(5):
        publish("build", number)
    moody.away = True
    for number in range(5, 10):
        publish("build", number)
        with transaction.atomic():
            publish("other", number)
            publish("build", -number)
    moody.away = False
    publish("build", "last")
    ended()
    assert data("build") == [0, 1, 2, 3, 4, 5, -5, 6, -6, 7, -7, 8, -8, 9, -9, "last"]
    assert data("other") == [5, 6, 7, 8, 9]


def test_no_event_overtakes_one_of_its_topic_that_waits(moody: MoodyHistory) -> None:
    moody.refused = {"build"}
    publish("build", "first")
    publish("noise", 1)
    poll(lambda: data("noise") == [1], limit=LIMIT, what="the history is known to be back")
    publish("build", "second")
    assert (data("build"), backlog.waiting()) == ([], 2)
    moody.refused = set()
    ended()
    assert data("build") == ["first", "second"]


def test_a_topic_that_the_history_refuses_holds_up_no_other(moody: MoodyHistory) -> None:
    moody.away = True
    publish("bad", 1)
    for number in range(3):
        publish(f"good:{number}", number)
    moody.refused = {"bad"}
    moody.away = False
    poll(lambda: backlog.waiting() == 1, limit=LIMIT, what="the other topics have been served")
    assert [data(f"good:{number}") for number in range(3)] == [[0], [1], [2]]
    moody.refused = set()


def test_one_writer_waits_for_a_history_that_is_away_and_those_after_it_do_not_ask(moody: MoodyHistory) -> None:
    moody.away = True
    for number in range(20):
        publish(f"build:{number % 3}", number)
    assert moody.asked_by.count(threading.current_thread().name) == 1
    moody.away = False
    ended()
    publish("build:0", "direct again")
    assert moody.asked_by[-1] == threading.current_thread().name
    assert data("build:0")[-1] == "direct again"


def test_writers_in_several_threads_lose_nothing(moody: MoodyHistory) -> None:
    def writer(name: int) -> Callable[[], None]:
        def write() -> None:
            for number in range(50):
                moody.away = (name + number) % 7 < 3
                publish("build", [name, number])

        return write

    workers = [threading.Thread(target=writer(name)) for name in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT)
    moody.away = False
    ended()
    for name in range(4):
        assert [number for who, number in data("build") if who == name] == list(range(50))


# -- giving up ------------------------------------------------------------------------------------------------------


def test_what_waited_too_long_is_lost_and_then_the_topic_gets_a_new_epoch(
    moody: MoodyHistory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish("build", "before")
    publish("quiet", "before")
    before = moody.heads(["build", "quiet"])
    monkeypatch.setattr(backlog, "SECONDS", -1.0)
    moody.away = True
    with caplog.at_level(logging.ERROR, "livefeed"):
        publish("build", "secret payload")
        poll(lambda: backlog.waiting() == 0, limit=LIMIT, what="the event has been given up")
    assert "1 events of build are lost" in caplog.text
    assert "secret payload" not in caplog.text
    assert threads()
    moody.away = False
    ended()
    after = moody.heads(["build", "quiet"])
    assert after["build"].epoch != before["build"].epoch
    assert after["quiet"] == before["quiet"]
    publish("build", "after")
    assert [event.data for event in moody.read("build", 1, 10).events] == ["after"]


def test_what_there_is_no_room_for_is_lost_and_then_the_topic_gets_a_new_epoch(
    moody: MoodyHistory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish("build", 0)
    before = moody.heads(["build"])["build"].epoch
    monkeypatch.setattr(backlog, "EVENTS", 3)
    moody.away = True
    with caplog.at_level(logging.ERROR, "livefeed"):
        for number in range(1, 6):
            publish("build", number)
    assert backlog.waiting() == 3
    assert caplog.text.count("1 events of build are lost") == 2
    moody.away = False
    ended()
    assert [event.data for event in moody.read("build", 1, 10).events] == [1, 2, 3]
    assert moody.heads(["build"])["build"].epoch != before


def test_the_bytes_that_wait_are_bounded_too(moody: MoodyHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BYTES", 1000)
    moody.away = True
    for _ in range(10):
        publish("build", "x" * 298)
    assert backlog.waiting() == 3
    moody.away = False
    ended()
    moody.away = True
    publish("build", "x" * 298)
    assert backlog.waiting() == 1


def test_topics_too_many_to_remember_make_every_topic_get_a_new_epoch(
    moody: MoodyHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        publish(f"build:{number}", 0)
    publish("quiet", 0)
    before = moody.heads(["quiet"])
    monkeypatch.setattr(backlog, "EVENTS", 2)
    moody.away = True
    for number in range(5):
        publish(f"build:{number}", 1)
    moody.away = False
    ended()
    assert moody.heads(["quiet"]) != before


def test_a_history_that_fails_while_epochs_are_drawn_is_asked_again(
    moody: MoodyHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("build", 0)
    before = moody.heads(["build"])
    renew, failures = moody.renew_epoch, iter([True, True])

    def fails_twice(topics: Any = None) -> int:
        if next(failures, False):
            raise HistoryUnavailable("not now")
        return renew(topics)

    monkeypatch.setattr(moody, "renew_epoch", fails_twice)
    monkeypatch.setattr(backlog, "EVENTS", 0)
    moody.away = True
    publish("build", 1)
    moody.away = False
    ended()
    assert moody.heads(["build"]) != before


# -- the process ----------------------------------------------------------------------------------------------------


def test_there_is_no_thread_while_nothing_waits(moody: MoodyHistory) -> None:
    publish("build", 1)
    assert not threads()
    moody.away = True
    publish("build", 2)
    assert threads() == ["livefeed-backlog"]
    moody.away = False
    ended()


PROCESS = """
import logging, os, sys
import django
from django.conf import settings

django.setup()
logging.basicConfig(stream=sys.stdout)
settings.LIVEFEED_HISTORY = "tests.test_backlog.MoodyHistory"
from livefeed import backlog, event_published, publish
from livefeed.history import get_history
from tests.test_backlog import data, ended

history = get_history()
history.away = True
backlog.FIRST_PAUSE = 60.0  # nobody tries again by himself
publish("build", 1)
"""


def run_process(code: str) -> str:
    return run([sys.executable, "-c", PROCESS + code], env={"DJANGO_SETTINGS_MODULE": "tests.settings"}, limit=60)


def test_a_process_that_ends_tries_once_more() -> None:
    out = run_process("""
event_published.connect(lambda event, **kwargs: print("told", event.topic, event.seq), weak=False)
history.away = False
""")
    assert "told build 1" in out


def test_a_process_that_ends_in_vain_says_what_is_lost_and_ends() -> None:
    out = run_process("backlog.LAST_WORDS = 0.1")
    assert "1 events of build are lost: the process ends" in out


def test_after_a_fork_the_parent_s_events_stay_the_parent_s() -> None:
    run_process("""
backlog.LAST_WORDS = 0.1
pid = os.fork()
if not pid:
    history.away = False
    fine = backlog.waiting() == 0
    publish("build", "the child's")
    os._exit(0 if fine and data("build") == ["the child's"] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert backlog.waiting() == 1
""")


# -- the database history, for changes on other databases -----------------------------------------------------------


def test_an_event_of_another_database_waits_for_a_history_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    append, failures = DatabaseHistory.append, iter([True, True, True])

    def fails_at_first(self: DatabaseHistory, events: Sequence[Event]) -> list[Stretch]:
        if next(failures, False):
            raise OperationalError("the database went away")
        return append(self, events)

    monkeypatch.setattr(DatabaseHistory, "append", fails_at_first)
    emit([new_event("build", 1, "message")], using="other")
    with transaction.atomic(using="other"):
        emit([new_event("build", 2, "message")], using="other")
    assert backlog.waiting() == 2
    ended()
    assert data("build") == [1, 2]


def test_an_event_of_another_database_is_part_of_a_transaction_of_the_history_s() -> None:
    with transaction.atomic():
        with transaction.atomic(using="other"):
            emit([new_event("build", 1, "message")], using="other")
        assert in_thread(lambda: data("build")) == []
    assert data("build") == [1]
