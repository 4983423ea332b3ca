"""Transactions that overlap, on a server that lets them (SQLite has one writer at a time); forced by hand."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models import F
from django.db.models.functions import Now

from livefeed import Event, publish
from livefeed.events import new_event
from livefeed.history import Retention, get_history
from livefeed.models import StoredEvent, StoredTopic
from livefeed.registry import registry
from livefeed.transactions import short_transaction
from tests.processes import poll
from tests.testapp.models import Article, Note, Tag
from tests.writing import Doomed, at_once, in_thread, interrupted, stored, told

pytestmark = pytest.mark.django_db(transaction=True)

LIMIT = 30


@contextmanager
def open_transaction(work: Callable[[], Any], *, commit: bool = True, ours: bool = False) -> Iterator[None]:
    """Hold another connection's transaction, which has done its work, open until the end of the block.

    It is one of the site's, or one of ours.
    """
    ready, done = threading.Event(), threading.Event()
    outcome: Future[None] = Future()

    def work_and_wait() -> None:
        work()
        ready.set()
        assert done.wait(LIMIT)
        if not commit:
            raise Doomed

    def transact() -> None:
        if ours:
            short_transaction("default", work_and_wait)
        else:
            with transaction.atomic():
                work_and_wait()

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


IMPATIENCE = {
    "postgresql": ("SET lock_timeout = '3s'", "RESET lock_timeout"),
    "mysql": ("SET innodb_lock_wait_timeout = 3", "SET innodb_lock_wait_timeout = DEFAULT"),
}


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Fail where a statement of this thread waits for another transaction's lock."""
    begin, end = IMPATIENCE[connection.vendor]
    execute(begin)
    yield
    execute(end)


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def without_waiting(work: Callable[[], object]) -> None:
    """Do something in another thread; fail where it waits for a lock, of this thread's say."""

    def impatiently() -> None:
        execute(IMPATIENCE[connection.vendor][0])
        work()

    in_thread(impatiently)


@pytest.fixture(params=["read committed", "repeatable read", "serializable"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each isolation level that a site may choose for its own transactions."""
    value: Any = request.param
    if connection.vendor == "postgresql":
        from psycopg import IsolationLevel

        value = IsolationLevel[value.upper().replace(" ", "_")]
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "isolation_level", value)
    connection.close()
    execute(IMPATIENCE[connection.vendor][0])
    yield request.param
    monkeypatch.undo()
    connection.close()


def some(topic: str, *data: Any) -> list[Event]:
    return [new_event(topic, one, "tick") for one in data]


def data(topic: str) -> list[Any]:
    return [event.data for event in stored(topic)]


def test_an_open_transaction_holds_up_no_other_publisher_and_its_event_comes_when_it_commits() -> None:
    with open_transaction(lambda: publish("build", "slow")):
        publish("build", "quick")
        with transaction.atomic():
            publish("build", "quick too")
        assert data("build") == ["quick", "quick too"]
    assert data("build") == ["quick", "quick too", "slow"]


def test_our_transactions_are_read_committed_whatever_a_site_chooses_for_its_own(level: str) -> None:
    def look_twice() -> tuple[int, int]:
        before = StoredTopic.objects.count()
        in_thread(lambda: publish(f"build:{before}", "x"))
        return before, StoredTopic.objects.count()

    assert short_transaction("default", look_twice) == (0, 1)
    if level == "repeatable read":
        with transaction.atomic():
            assert look_twice() == (1, 1)
    assert short_transaction("default", look_twice)[1] == StoredTopic.objects.count()


def test_an_open_transaction_holds_up_nobody_at_any_level_and_is_not_failed_by_our_numbering(level: str) -> None:
    publish("build", "before")
    with open_transaction(lambda: [Article.objects.count(), publish("build", "slow")]):
        publish("build", "quick")
        with transaction.atomic():
            publish("build", "quick too")
        assert data("build") == ["before", "quick", "quick too"]
    assert data("build") == ["before", "quick", "quick too", "slow"]


#: Whether a statement waits for a lock. InnoDB's own table of that is a copy which is renewed only where nobody has
#: looked at it for a tenth of a second: who looks more often sees the first copy for ever.
WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND datname = current_database()",
    "mysql": "SELECT variable_value FROM information_schema.global_status "
    "WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'",
}


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(WAITING[connection.vendor])
        return int(cursor.fetchone()[0]) > 0


def number(*events: Event) -> None:
    get_history().record(events)
    get_history().number([event.topic for event in events])


NUMBERINGS: dict[str, Callable[[], object]] = {
    "publish": lambda: publish("build", "mine"),
    "append to several": lambda: get_history().append(some("build", "mine") + some("builda", "x")),
    "number": lambda: number(*some("build", "mine")),
    "number several": lambda: number(*some("build", "mine"), *some("builda", "x")),
}


@pytest.mark.parametrize("name", NUMBERINGS)
def test_a_numbering_that_waited_for_another_one_goes_on_from_its_head(level: str, name: str) -> None:
    """And what commits while it waits is numbered along: a snapshot that is older than the lock would not show it."""
    history = get_history()
    history.append(some("build", "before"))
    rival = threading.Thread(target=lambda: in_thread(NUMBERINGS[name]))
    with open_transaction(lambda: number(*some("build", "rival", "rival too")), ours=True):
        rival.start()
        poll(somebody_waits, limit=LIMIT, what="the other one waits for the lock")
        in_thread(lambda: history.record(some("build", "meanwhile")))
    rival.join(LIMIT)
    assert data("build")[:3] == ["before", "rival", "rival too"]
    assert sorted(data("build")[3:]) == ["meanwhile", "mine"]


@pytest.mark.parametrize("after", ["FOR UPDATE", 'INSERT INTO "livefeed_event"', 'UPDATE "livefeed_event"'])
def test_a_numbering_under_way_holds_up_no_transaction_that_publishes(level: str, after: str) -> None:
    history = get_history()
    history.append(some("build", *range(3)))
    if after.startswith("UPDATE"):
        history.record(some("build", "left"))
    with interrupted(after, lambda: without_waiting(lambda: history.record(some("build", "between")))):
        history.append(some("build", "mine") + some("builda", "x"))
    history.number(["build"])
    assert sorted({*map(str, data("build"))} - {"left"}) == ["0", "1", "2", "between", "mine"]


@pytest.mark.parametrize("after", ['UPDATE "livefeed_topic"', "DELETE "])
def test_a_trimming_under_way_holds_up_no_transaction_that_publishes(level: str, after: str) -> None:
    """At REPEATABLE READ InnoDB locks the gap before what is deleted, where the events without a number stand."""
    history = get_history()
    history.append(some("build", *range(5)))
    record = lambda: history.record(some("build", "between"))  # noqa: E731
    with interrupted(after, lambda: without_waiting(record)):
        assert history.trim(lambda topic: Retention(0, 2), ["build"]) == 3
    (stretch,) = history.number(["build"])
    assert [event.seq for event in stretch.events] == [6]


@pytest.mark.parametrize("neighbour", ["buil", "build", "builda"])
@pytest.mark.parametrize("count", [2, 10, 300])
def test_numbering_and_trimming_lock_no_row_but_their_own_however_small_the_table_is(
    count: int, neighbour: str
) -> None:
    """InnoDB locks what it reads for a change, and of a small table its optimizer likes to read all."""
    history = get_history()
    history.append(some("old", *range(count)))
    StoredEvent.objects.filter(topic="old").update(numbered_at=Now() - datetime.timedelta(seconds=100))
    history.record(some("build", *range(count)))
    with open_transaction(lambda: history.record(some(neighbour, "slow") + some("olda", "slow"))):
        if connection.vendor == "mysql":
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE TABLE livefeed_event")
                cursor.fetchall()
        (stretch,) = history.number(["build"])
        assert len(stretch.events) == count
        assert history.trim(lambda topic: Retention(60, 1)) == count + count - 1


def test_two_writers_of_one_row_are_published_in_the_order_of_their_commits_at_any_level(level: str) -> None:
    article = Article.objects.create(title="One")
    began = threading.Event()

    def second() -> None:
        for _ in range(3):  # above READ COMMITTED a database may make the second of two writers begin anew
            try:
                with transaction.atomic():
                    began.set()
                    Article.objects.filter(pk=article.pk).update(votes=F("votes") + 1)
                    mine = Article.objects.get(pk=article.pk)
                    mine.title = f"second of {mine.title}"
                    mine.save()
            except OperationalError:
                continue
            return

    rival = threading.Thread(target=lambda: in_thread(second))
    with transaction.atomic():
        article.title = "first"
        article.save()
        rival.start()
        assert began.wait(LIMIT)
    rival.join(LIMIT)
    assert [entry["title"] for _, entry in told("testapp.article")] == ["One", "first", "second of first"]


def test_numbers_follow_the_insertion_where_commits_come_in_another_order() -> None:
    """Both are committed before anybody numbers; the first to insert was the last to commit."""
    history = get_history()
    with open_transaction(lambda: history.record(some("build", "first"))):
        in_thread(lambda: history.record(some("build", "second")))
    assert data("build") == []
    history.number(["build"])
    assert data("build") == ["first", "second"]


def test_an_open_transaction_on_a_topic_that_is_new_holds_up_nobody() -> None:
    with open_transaction(lambda: publish("new", "slow")):
        publish("new", "quick")
    assert data("new") == ["quick", "slow"]


def test_two_who_make_a_new_topic_in_the_same_moment_share_it() -> None:
    with interrupted("FOR UPDATE", lambda: in_thread(lambda: publish("new", "rival"))):
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
