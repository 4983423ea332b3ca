"""The relay without a database: when its thread numbers what, and that nobody waits for it. See also tests/backends."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from livefeed import relay
from livefeed.announcing import announce
from livefeed.events import Stretch
from livefeed.history.memory import MemoryHistory
from livefeed.relay import Relay, number_soon, serves

from .processes import poll, run

LIMIT = 30
RELAY = "livefeed-relay"


class Books(MemoryHistory):
    """A history that only notes what it is asked to number, and in which thread."""

    numbers_elsewhere = True

    def __init__(self) -> None:
        super().__init__()
        self.numbered: list[list[str]] = []
        self.threads: list[threading.Thread] = []
        self.asked = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        self.uses = ""

    def number(self, topics: Iterable[str]) -> list[Stretch]:
        self.numbered.append(sorted(topics))
        self.threads.append(threading.current_thread())
        if self.uses:
            assert connections[self.uses]
        self.asked.release()
        if self.errors:
            raise self.errors.pop(0)
        return [Stretch(topic, "Epoch1", ()) for topic in topics]


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    made = Books()
    monkeypatch.setattr(relay, "get_history", lambda: made)
    return made


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topics that were announced."""
    topics: list[str] = []

    def note(stretches: Iterable[Stretch]) -> None:
        told = list(stretches)
        topics.extend(stretch.topic for stretch in told)
        announce(told)

    monkeypatch.setattr(relay, "announce", note)
    return topics


@pytest.fixture
def wakes(working_relay: Relay, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often the thread was woken."""
    found: list[str] = []
    notify: Callable[[], None] = working_relay._changed.notify_all
    monkeypatch.setattr(working_relay._changed, "notify_all", lambda: (found.append("woken"), notify()))
    return found


def test_what_a_commit_left_is_numbered_and_announced_at_once_in_a_thread_of_its_own(
    books: Books, announced: list[str], working_relay: Relay
) -> None:
    number_soon({"build", "news"})
    assert books.asked.acquire(timeout=LIMIT)
    assert books.numbered == [["build", "news"]]
    assert books.threads[0].name == RELAY
    assert books.threads[0].daemon
    working_relay.flush(LIMIT)
    assert sorted(announced) == ["build", "news"]


def test_what_many_commits_left_while_it_rests_is_numbered_in_one_go_and_wakes_nobody(
    books: Books, announced: list[str], working_relay: Relay, wakes: list[str]
) -> None:
    number_soon({"first"})
    assert books.asked.acquire(timeout=LIMIT)
    wakes.clear()
    for number in range(100):
        number_soon({f"topic:{number % 3}"})
    assert wakes == []
    working_relay.flush(LIMIT)
    assert books.numbered == [["first"], ["topic:0", "topic:1", "topic:2"]]
    assert len(set(books.threads)) == 1


def test_after_a_while_with_nothing_to_do_the_thread_ends_and_the_next_commit_begins_another_one(
    books: Books, working_relay: Relay, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(relay, "IDLE", 0.01)
    settings.LIVEFEED_RELAY_PAUSE = 0.001
    for topic in ("one", "two"):
        number_soon({topic})
        assert books.asked.acquire(timeout=LIMIT)
        books.threads[-1].join(LIMIT)
        assert not books.threads[-1].is_alive()
        assert working_relay._thread is None
    assert books.numbered == [["one"], ["two"]]


def test_a_commit_wakes_a_thread_that_waits(books: Books, working_relay: Relay, settings: Any) -> None:
    settings.LIVEFEED_RELAY_PAUSE = 0.001
    for topic in ("one", "two"):
        number_soon({topic})
        assert books.asked.acquire(timeout=relay.IDLE / 2)
        poll(lambda: working_relay._waits, limit=LIMIT, what="the thread waits")
    assert len(set(books.threads)) == 1


def test_where_the_connection_broke_it_is_tried_again_on_a_new_one(
    books: Books, announced: list[str], working_relay: Relay
) -> None:
    books.errors = [OperationalError("server closed the connection unexpectedly")]
    number_soon({"build"})
    working_relay.flush(LIMIT)
    assert books.numbered == [["build"], ["build"]]
    assert announced == ["build"]


@pytest.mark.parametrize("errors", [[OperationalError("away"), OperationalError("away")], [ValueError("a bug")]])
def test_a_numbering_that_fails_is_logged_and_the_next_ones_are_done(
    books: Books, working_relay: Relay, errors: list[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    books.errors = list(errors)
    with caplog.at_level(logging.ERROR, "livefeed"):
        number_soon({"build"})
        working_relay.flush(LIMIT)
    assert "Numbering after a commit failed" in caplog.text
    number_soon({"news"})
    working_relay.flush(LIMIT)
    assert books.numbered[-1] == ["news"]


def test_where_no_thread_can_be_started_whoever_committed_numbers(
    books: Books, announced: list[str], working_relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        number_soon({"build"})
    assert (books.numbered, announced) == ([["build"]], ["build"])
    assert books.threads == [threading.current_thread()]
    number_soon({"news"})
    working_relay.flush(LIMIT)
    assert books.threads[-1] is not threading.current_thread()


def test_in_tests_whoever_committed_numbers(books: Books, settings: Any) -> None:
    settings.LIVEFEED_RELAY_PAUSE = 0.01
    assert not serves()
    number_soon({"build"})
    assert books.threads == [threading.current_thread()]


@pytest.mark.usefixtures("working_relay")
def test_without_a_pause_or_where_the_history_wants_it_whoever_committed_numbers(books: Books, settings: Any) -> None:
    assert serves()
    settings.LIVEFEED_RELAY_PAUSE = 0
    assert not serves()
    settings.LIVEFEED_RELAY_PAUSE = 0.01
    books.numbers_elsewhere = False
    assert not serves()
    number_soon({"build"})
    assert books.threads == [threading.current_thread()]


def test_where_more_topics_wait_than_it_numbers_whoever_committed_numbers(
    books: Books, working_relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "MOST", 3)
    number_soon({"first"})
    assert books.asked.acquire(timeout=LIMIT)  # and now it rests
    for number in range(5):
        number_soon({f"topic:{number}"})
    number_soon({"four", "at", "a", "time"})
    working_relay.flush(LIMIT)
    mine = [topics for topics, thread in zip(books.numbered, books.threads, strict=True) if thread.name != RELAY]
    assert mine == [["topic:3"], ["topic:4"], ["a", "at", "four", "time"]]
    assert books.numbered[-1] == ["topic:0", "topic:1", "topic:2"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_somebody_ends_is_followed_by_another_one(books: Books, working_relay: Relay) -> None:
    books.errors = [KeyboardInterrupt()]
    number_soon({"one"})
    assert books.asked.acquire(timeout=LIMIT)
    books.threads[0].join(LIMIT)
    number_soon({"two"})
    assert books.asked.acquire(timeout=LIMIT)
    assert books.threads[1].name == RELAY
    assert books.numbered == [["one"], ["two"]]


@pytest.mark.parametrize("pool", [True, False])
def test_a_connection_that_comes_from_a_pool_is_given_back_after_each_numbering(
    books: Books, working_relay: Relay, monkeypatch: pytest.MonkeyPatch, pool: bool
) -> None:
    closed: list[str] = []
    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "pool", pool)
    monkeypatch.setattr(BaseDatabaseWrapper, "close", lambda self: closed.append(threading.current_thread().name))
    monkeypatch.setattr(Relay, "_rest", lambda self: rests.release())
    rests = threading.Semaphore(0)
    books.uses = "default"
    number_soon({"build"})
    assert rests.acquire(timeout=LIMIT)
    assert closed == ([RELAY] if pool else [])


FORK = """
import os, django
django.setup()
from livefeed import relay
from livefeed.history.memory import MemoryHistory

class Books(MemoryHistory):
    numbers_elsewhere = True

    def number(self, topics):
        os.write(1, f"{' '.join(topics)} in the {who}\\n".encode())  # whole lines: one is forked amid it
        return []

who, books = "parent", Books()
relay.get_history = lambda: books
relay.number_soon(["first"])
relay._relay.flush(30)
relay.settings.__class__.RELAY_PAUSE.default = 1.0
relay.number_soon(["second"])
while relay._relay._topics:
    pass
relay.number_soon(["the parent's"])
child = os.fork()
if child == 0:
    who = "child"
    relay.number_soon(["the child's"])
    relay._relay.flush(30)
    os._exit(0)
os.waitpid(child, 0)
relay._relay.flush(30)
"""


def test_after_a_fork_each_process_numbers_what_it_committed_itself() -> None:
    out = run([sys.executable, "-c", FORK], env={"DJANGO_SETTINGS_MODULE": "tests.settings"}, limit=60)
    assert sorted(out.splitlines()) == [
        "first in the parent",
        "second in the parent",
        "the child's in the child",
        "the parent's in the parent",
    ]
