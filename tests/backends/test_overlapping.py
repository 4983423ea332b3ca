"""Transactions that overlap, on a server that lets them (SQLite has one writer at a time); forced by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction

from livefeed import publish
from livefeed.events import new_event
from livefeed.history import get_history
from livefeed.registry import registry
from tests.testapp.models import Article, Note, Tag
from tests.writing import Doomed, at_once, in_thread, interrupted, stored, told

pytestmark = pytest.mark.django_db(transaction=True)

LIMIT = 30


@contextmanager
def open_transaction(work: Callable[[], Any], *, commit: bool = True) -> Iterator[None]:
    """Hold another connection's transaction, which has done its work, open until the end of the block."""
    ready, done = threading.Event(), threading.Event()
    outcome: Future[None] = Future()

    def transact() -> None:
        with transaction.atomic():
            work()
            ready.set()
            assert done.wait(LIMIT)
            if not commit:
                raise Doomed

    def run() -> None:
        try:
            transact()
        except Doomed:
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)
        finally:
            ready.set()
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(LIMIT)
    try:
        yield
    finally:
        done.set()
        thread.join(LIMIT)
    outcome.result(timeout=0)


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Fail where a statement of this thread waits for another transaction's lock."""
    statements = {
        "postgresql": ("SET lock_timeout = '3s'", "RESET lock_timeout"),
        "mysql": ("SET innodb_lock_wait_timeout = 3", "SET innodb_lock_wait_timeout = DEFAULT"),
    }
    begin, end = statements[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(begin)
    yield
    with connection.cursor() as cursor:
        cursor.execute(end)


def data(topic: str) -> list[Any]:
    return [event.data for event in stored(topic)]


def test_an_open_transaction_holds_up_no_other_publisher_and_its_event_comes_when_it_commits() -> None:
    with open_transaction(lambda: publish("build", "slow")):
        publish("build", "quick")
        with transaction.atomic():
            publish("build", "quick too")
        assert data("build") == ["quick", "quick too"]
    assert data("build") == ["quick", "quick too", "slow"]


def test_an_open_transaction_on_a_topic_that_is_new_holds_up_nobody() -> None:
    with open_transaction(lambda: publish("new", "slow")):
        publish("new", "quick")
    assert data("new") == ["quick", "slow"]


def test_two_who_make_a_new_topic_in_the_same_moment_share_it() -> None:
    with interrupted('UPDATE "livefeed_topic"', lambda: in_thread(lambda: publish("new", "rival"))):
        publish("new", "mine")
    assert sorted(data("new")) == ["mine", "rival"]


def test_what_an_open_transaction_takes_back_leaves_no_hole() -> None:
    with open_transaction(lambda: publish("build", "phantom"), commit=False):
        publish("build", "one")
    publish("build", "two")
    assert data("build") == ["one", "two"]


def test_a_look_holds_up_nobody_and_takes_no_open_transaction_for_a_leftover() -> None:
    history = get_history()
    with open_transaction(lambda: publish("build", "slow")):
        seen: frozenset[int] = frozenset()
        for _ in range(3):
            stretches, seen = history.leftovers(seen)
            assert (stretches, seen) == ([], frozenset())
    assert data("build") == ["slow"]


def test_trimming_and_new_epochs_wait_for_no_open_transaction(settings: Any) -> None:
    settings.LIVEFEED_RETENTION_EVENTS = 1
    for number in range(3):
        publish("build", number)
    with open_transaction(lambda: publish("build", "slow")):
        assert get_history().trim(registry.retention) == 2
        assert get_history().renew_epoch(["build"]) == 1
    assert get_history().heads(["build"])["build"].seq == 4


def test_transactions_that_publish_on_two_topics_in_crossing_order_do_not_wait_for_each_other() -> None:
    def backwards() -> None:
        publish("two", "a")
        publish("one", "a")

    with open_transaction(backwards), transaction.atomic():
        publish("one", "b")
        publish("two", "b")
    assert data("one") == data("two") == ["b", "a"]


def test_appends_on_two_topics_in_crossing_order_never_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    history = get_history()
    history.append([new_event(topic, "first", "tick") for topic in ("one", "two")])
    monkeypatch.setattr("livefeed.transactions.TRIES", 1)

    def writer(topics: tuple[str, str]) -> Callable[[], None]:
        def write() -> None:
            for number in range(20):
                history.append([new_event(topic, number, "tick") for topic in topics])

        return write

    at_once([writer(topics) for topics in [("one", "two"), ("two", "one")] * 2])
    assert len(data("one")) == len(data("two")) == 81


def test_changes_of_one_row_in_overlapping_transactions_are_published_in_the_order_of_their_commits() -> None:
    article = Article.objects.create(title="One")
    began = threading.Event()

    def second() -> None:
        with transaction.atomic():
            mine = Article.objects.get(pk=article.pk)
            mine.title = "second"
            began.set()
            mine.save()  # waits for the first one's commit

    def first() -> None:
        with transaction.atomic():
            mine = Article.objects.get(pk=article.pk)
            mine.title = "first"
            mine.save()
            rival.start()
            assert began.wait(LIMIT)

    rival = threading.Thread(target=lambda: in_thread(second))
    in_thread(first)
    rival.join(LIMIT)
    for topic in ("testapp.article", "detail"):
        assert [entry["title"] for _, entry in told(topic)] == ["One", "first", "second"]


def test_a_save_in_autocommit_waits_for_the_transaction_that_deletes_its_row_and_says_nothing() -> None:
    """The row is locked by the re-read: the deletion cannot commit between the re-read and the event."""
    article = Article.objects.create(title="One")
    deleting = threading.Event()

    def delete() -> None:
        deleting.set()
        Article.objects.get(pk=article.pk).delete()

    rival = threading.Thread(target=lambda: in_thread(delete))

    def interlude() -> None:
        rival.start()
        assert deleting.wait(LIMIT)

    article.title = "late"
    with interrupted("FOR UPDATE" if connection.vendor == "mysql" else "FOR NO KEY UPDATE", interlude):
        article.save()
    rival.join(LIMIT)
    for topic in ("testapp.article", "detail"):
        types = [type for type, _ in told(topic)]
        assert types in (["created", "updated", "deleted"], ["created", "deleted"])


def test_tags_of_one_article_that_are_added_at_once_end_with_the_truth() -> None:
    article = Article.objects.create(title="One")
    tags = [Tag.objects.create(name=str(number)) for number in range(8)]

    def adder(tag: Tag) -> Callable[[], None]:
        return lambda: Article.objects.get(pk=article.pk).tags.add(tag)

    at_once([adder(tag) for tag in tags])
    entries = told("detail")
    assert len(entries) == 9
    assert entries[-1][1]["tags"] == [tag.pk for tag in tags]


def test_tags_that_are_added_from_both_sides_at_once_end_with_the_truth_and_without_a_deadlock() -> None:
    articles = [Article.objects.create(title=str(number)) for number in range(4)]
    tags = [Tag.objects.create(name=str(number)) for number in range(4)]
    works = [lambda article=article: article.tags.add(*tags) for article in articles]
    works += [lambda tag=tag: tag.articles.add(*reversed(articles)) for tag in tags]
    at_once(works)
    ends = {entry["pk"]: entry["tags"] for _, entry in told("detail")}
    assert ends == {article.pk: [tag.pk for tag in tags] for article in articles}


def test_a_row_that_is_moved_from_topic_to_topic_by_overlapping_transactions_is_on_one_in_the_end() -> None:
    note = Note.objects.create(board="start", text="One")

    def mover(name: str) -> Callable[[], None]:
        def move() -> None:
            for turn in range(5):
                with transaction.atomic():
                    Note(pk=note.pk, board=f"{name}{turn}", text="One").save()

        return move

    at_once([mover(name) for name in "abcd"])
    boards = ["start", *(f"{name}{turn}" for name in "abcd" for turn in range(5))]
    present = [board for board in boards if told(f"testapp.note:{board}")[-1][0] != "deleted"]
    assert present == [Note.objects.get(pk=note.pk).board]
