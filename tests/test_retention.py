"""How long events are kept: what feeds and settings say, what is trimmed when, and by one process at a time."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import CharField, F, Value
from django.db.models.functions import Cast, Concat, Now, TruncSecond
from django.test import Client
from django.urls import reverse

from livefeed import Event, LiveFeed, publish
from livefeed.checks import check_feeds
from livefeed.events import new_event
from livefeed.history import History, Retention, get_history
from livefeed.history import database as database_history
from livefeed.history.database import DatabaseHistory
from livefeed.history.memory import MemoryHistory
from livefeed.leases import CHORE, Claim, LeaseRequest, chore, get_leases
from livefeed.models import Lease, StoredEvent, StoredTopic
from livefeed.registry import registry
from livefeed.trimming import trim

from .writing import Doomed, at_once, in_thread, statements, stored

pytestmark = pytest.mark.django_db(transaction=True)
pytest_plugins = ["tests.reading_fixtures"]

HOUR = 3600.0


class Chat(LiveFeed):
    name = "chat"
    retention = HOUR
    retention_events = 3


class Audit(LiveFeed):
    name = "audit"
    retention = 0
    retention_events = 5


class Brief(LiveFeed):
    name = "brief"
    retention_events = 2


@pytest.fixture
def database() -> DatabaseHistory:
    return DatabaseHistory()


@pytest.fixture(params=[DatabaseHistory, MemoryHistory])
def history(request: pytest.FixtureRequest) -> History:
    made: History = request.param()
    return made


def append(history: History, topic: str, count: int = 1) -> None:
    history.append([new_event(topic, number, "tick") for number in range(count)])


def pass_time(seconds: float, *topics: str) -> None:
    """Let seconds pass for these topics, or for all of them."""
    names = topics or list(StoredTopic.objects.values_list("name", flat=True))
    passed = datetime.timedelta(seconds=seconds)
    StoredEvent.objects.filter(topic__in=names).update(numbered_at=F("numbered_at") - passed)
    StoredTopic.objects.filter(name__in=names).update(trim_at=F("trim_at") - passed)


def keep(seconds: float, events: int) -> Callable[[str], Retention]:
    return lambda topic: Retention(seconds, events)


def floor(topic: str) -> int:
    return get_history().heads([topic])[topic].floor


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_a_feed_says_how_long_its_topics_are_kept(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    with_feed(Chat)
    assert registry.retention("chat") == registry.retention("chat:7") == Retention(HOUR, 3)


def test_what_a_feed_does_not_say_the_settings_do(with_feed: Callable[[type[LiveFeed]], None], settings: Any) -> None:
    settings.LIVEFEED_RETENTION, settings.LIVEFEED_RETENTION_EVENTS = 60.0, 7
    with_feed(Brief)
    assert registry.retention("brief:1") == Retention(60.0, 2)
    assert registry.retention("build") == Retention(60.0, 7)


def test_nought_of_a_feed_is_no_limit_whatever_the_settings_say(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    with_feed(Audit)
    assert registry.retention("audit") == Retention(0, 5)


def test_a_topic_that_no_feed_owns_is_kept_as_the_settings_say() -> None:
    assert registry.retention("nobody:1") == Retention(86_400.0, 10_000)


def test_topics_of_different_feeds_are_trimmed_each_by_its_own(
    history: History, with_feed: Callable[[type[LiveFeed]], None]
) -> None:
    for feed in (Chat, Audit, Brief):
        with_feed(feed)
    for topic in ("chat:1", "audit", "brief", "nobody"):
        append(history, topic, 6)
    assert history.trim(registry.retention) == 3 + 1 + 4
    floors = {name: head.floor for name, head in history.heads(["chat:1", "audit", "brief", "nobody"]).items()}
    assert floors == {"chat:1": 3, "audit": 1, "brief": 4, "nobody": 0}


def test_only_the_topics_asked_for_are_trimmed(history: History) -> None:
    for topic in ("one", "two"):
        append(history, topic, 5)
    assert history.trim(keep(0, 1), ["one", "none"]) == 4
    assert history.heads(["two"])["two"].floor == 0


# -- what is trimmed when ---------------------------------------------------------------------------------------------


def test_a_two_hour_transaction_s_event_survives_a_retention_of_one_hour(database: DatabaseHistory) -> None:
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
    with transaction.atomic():
        database.record([Event("build", "message", "1", created_at=began)])
    database.number(["build"])
    assert database.trim(keep(HOUR, 0)) == 0
    (event,) = stored("build")
    assert event.created_at == began


def test_a_topic_is_due_when_its_oldest_event_is(database: DatabaseHistory) -> None:
    append(database, "build", 2)
    hour = keep(HOUR, 0)
    assert database.trim(hour) == 0
    pass_time(HOUR / 2)
    append(database, "build", 2)
    assert database.trim(hour) == 0
    pass_time(HOUR / 2 + 1)
    assert database.trim(hour) == 2
    pass_time(HOUR / 2 + 1)
    assert database.trim(hour) == 2
    append(database, "build")
    pass_time(HOUR + 1)
    assert database.trim(hour) == 1
    assert floor("build") == 5


def test_a_topic_is_due_when_it_has_one_event_too_many(database: DatabaseHistory) -> None:
    append(database, "build", 3)
    three = keep(0, 3)
    assert database.trim(three) == 0
    append(database, "build")
    assert database.trim(three) == 1
    append(database, "build", 5)
    assert database.trim(three) == 5
    assert floor("build") == 6


def test_topics_of_which_nothing_is_too_old_or_too_much_cost_nothing(database: DatabaseHistory) -> None:
    for number in range(30):
        append(database, f"build:{number}", 2)
    policy = keep(HOUR, 3)
    database.trim(policy)
    for number in range(30):
        append(database, f"build:{number}")
    with statements() as seen:
        assert database.trim(policy) == 0
    assert len(seen) == 1
    pass_time(HOUR + 1, "build:7")
    assert database.trim(policy) == 3


def test_topics_that_are_kept_for_longer_are_not_looked_at_with_those_kept_shorter(database: DatabaseHistory) -> None:
    def policy(topic: str) -> Retention:
        return Retention(HOUR if topic == "short" else 100 * HOUR, 0)

    for topic in ("short", *(f"long:{number}" for number in range(20))):
        append(database, topic)
    database.trim(policy)
    pass_time(2 * HOUR)
    with statements('UPDATE "livefeed_topic"') as seen:
        assert database.trim(policy) == 1
    assert len(seen) == 2


def test_a_retention_that_became_shorter_holds_for_what_is_there_already(database: DatabaseHistory) -> None:
    append(database, "build", 5)
    assert database.trim(keep(100 * HOUR, 10)) == 0
    pass_time(HOUR + 1)
    append(database, "build", 2)
    assert database.trim(keep(HOUR, 10)) == 5
    assert database.trim(keep(HOUR, 1)) == 1
    assert database.trim(keep(100 * HOUR, 10)) == 0
    pass_time(2 * HOUR)
    assert database.trim(keep(HOUR, 0)) == 1


def test_a_retention_that_became_longer_keeps_what_is_there(database: DatabaseHistory) -> None:
    append(database, "build", 2)
    database.trim(keep(HOUR, 3))
    pass_time(HOUR + 1)
    append(database, "build", 3)
    assert database.trim(keep(10 * HOUR, 10)) == 0
    assert database.trim(keep(0, 0)) == 0
    assert len(stored("build")) == 5


def test_a_topic_that_is_new_is_trimmed_without_anybody_asking_for_it(database: DatabaseHistory) -> None:
    policy = keep(0, 3)
    database.trim(policy)
    append(database, "new", 5)
    assert database.trim(policy) == 2


def test_a_trimming_that_was_cut_short_is_continued_by_the_next(
    database: DatabaseHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livefeed.history.database.BATCH", 10)
    append(database, "build", 50)
    policy = keep(0, 5)
    deletions = 0

    def dies(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal deletions
        deletions += sql.startswith("DELETE")
        if deletions == 3:
            raise Doomed
        return execute(sql, params, many, context)

    with pytest.raises(Doomed), connection.execute_wrapper(dies):
        database.trim(policy)
    assert floor("build") == 20
    assert database.trim(policy) == 25
    assert floor("build") == 45


def test_events_that_somebody_deleted_by_hand_do_not_stop_the_trimming(database: DatabaseHistory) -> None:
    append(database, "build", 10)
    StoredEvent.objects.filter(topic="build", seq__lte=4).delete()
    append(database, "bare", 3)
    StoredEvent.objects.filter(topic="bare").delete()
    assert database.trim(keep(HOUR, 3)) == 3
    assert (floor("build"), floor("bare")) == (7, 3)


def test_two_who_trim_at_once_remove_each_event_once(
    database: DatabaseHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livefeed.history.database.BATCH", 10)
    topics = [f"build:{number}" for number in range(5)]
    for topic in topics:
        append(database, topic, 45)
    assert sum(at_once([lambda: DatabaseHistory().trim(keep(0, 5))] * 3)) == 200
    assert {head.floor for head in database.heads(topics).values()} == {40}
    assert StoredEvent.objects.count() == 25


def test_publishers_and_trimmers_at_once_leave_no_hole_and_keep_the_newest(
    database: DatabaseHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livefeed.history.database.BATCH", 10)
    policy = keep(0, 5)

    def write() -> None:
        for _ in range(15):
            append(DatabaseHistory(), "build", 3)

    def remove() -> None:
        history = DatabaseHistory()
        for _ in range(15):
            history.trim(policy)

    at_once([write, write, remove, remove])
    database.trim(policy)
    page = database.read("build", floor("build"), 100)
    assert [event.seq for event in page.events] == [86, 87, 88, 89, 90]
    assert page.head.floor == 85


# -- one at a time ----------------------------------------------------------------------------------------------------


def test_what_one_process_does_no_other_does_at_the_same_time() -> None:
    with chore("trim") as mine:
        assert mine
        with chore("trim") as mine_too:
            assert not mine_too
        with chore("other") as other:
            assert other
    with chore("trim") as mine:
        assert mine


def test_whoever_fails_lets_the_next_one_try() -> None:
    with pytest.raises(Doomed), chore("trim"):
        raise Doomed
    with chore("trim") as mine:
        assert mine


def test_whoever_died_keeps_others_away_for_the_time_of_a_lease_only() -> None:
    get_leases().acquire(LeaseRequest((Claim(f"{CHORE}trim", 1),), "", "dead"))
    assert trim() is None
    Lease.objects.update(expires_at=Now() - datetime.timedelta(seconds=1))
    assert trim() == 0


def test_of_many_at_once_exactly_one_gets_the_chore() -> None:
    inside = threading.Barrier(5)

    def attempt() -> bool:
        with chore("trim") as mine:
            inside.wait(30)
            return mine

    assert sorted(at_once([attempt] * 5)) == [False] * 4 + [True]


def test_a_chore_is_no_connection(admin_client: Client) -> None:
    Lease.objects.create(holder="user:7", token="t", client="c", process="p", expires_at="2030-01-01T00:00Z")
    with chore("trim"):
        page = admin_client.get(reverse("admin:livefeed_lease_changelist")).text
    assert "user:7" in page
    assert CHORE not in page


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(settings: Any) -> None:
    settings.LIVEFEED_RETENTION_EVENTS = 2
    for topic in ("build", "other"):
        for number in range(5):
            publish(topic, number)


@pytest.fixture
def busy() -> Iterator[None]:
    with chore("trim") as mine:
        assert mine
        yield


def test_livefeed_prune_says_how_much_it_removed(five: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("livefeed_prune")
    assert capsys.readouterr().out == "Removed 6 events and 0 leases.\n"


def test_livefeed_prune_of_one_topic_leaves_the_others_alone(five: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("livefeed_prune", "--topic", "build")
    assert "3 events" in capsys.readouterr().out
    assert (floor("build"), floor("other")) == (3, 0)


def test_livefeed_prune_tells_of_each_topic_if_it_is_asked_to(five: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("livefeed_prune", verbosity=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Trimmed build: 3 events.", "Trimmed other: 3 events.", "Removed 6 events and 0 leases."]


@pytest.mark.parametrize(("topic", "word"), [("two words", "two words"), ("unheard", "unheard")])
def test_livefeed_prune_refuses_a_topic_that_can_t_be_meant(topic: str, word: str) -> None:
    with pytest.raises(CommandError, match=word):
        call_command("livefeed_prune", "--topic", topic)


@pytest.mark.usefixtures("five", "busy")
def test_livefeed_prune_gives_up_where_another_process_is_at_it_for_too_long() -> None:
    with pytest.raises(CommandError, match="Another process"):
        call_command("livefeed_prune", "--wait", "0")


def test_livefeed_prune_waits_for_another_process_and_says_so(
    five: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("livefeed.management.commands.livefeed_prune.AGAIN", 0.01)
    token = get_leases().acquire(LeaseRequest((Claim(f"{CHORE}trim", 1),), "", "p"))
    told: list[str] = []

    class Out:
        def write(self, text: str) -> None:
            told.append(text)
            if "waiting" in text:
                in_thread(lambda: get_leases().release([token]))

    call_command("livefeed_prune", stdout=Out())
    assert "waiting" in told[0]
    assert "Removed 6 events" in told[-1]


def test_livefeed_prune_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("livefeed_prune", "--help")
    text = capsys.readouterr().out
    for word in ("--topic", "--wait", "LIVEFEED_RETENTION"):
        assert word in text


@pytest.mark.parametrize("seconds", [float("inf"), 1e12, 10**11])
def test_a_retention_beyond_all_bounds_stops_the_trimming_of_no_other_topic(
    with_feed: Callable[[type[LiveFeed]], None], database: DatabaseHistory, settings: Any, seconds: float
) -> None:
    @with_feed
    class EndlessFeed(LiveFeed):
        name = "endless"
        retention = seconds
        retention_events = 2**63

    settings.LIVEFEED_RETENTION_EVENTS = 1
    append(database, "endless", 2)
    append(database, "zoo", 3)
    assert database.trim(registry.retention) == 2
    assert "livefeed.E006" in {problem.id for problem in check_feeds()}


def test_topics_that_an_older_process_planned_to_keep_are_looked_at_again(
    database: DatabaseHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = DatabaseHistory(), DatabaseHistory()
    week, hour = keep(7 * 86_400, 0), keep(3600, 0)
    append(older, "build", 3)
    newer.trim(hour)
    older.trim(week, ["build"])  # its plan for the topic is the last
    pass_time(3700, "build")
    assert newer.trim(hour) == 0
    monkeypatch.setattr(database_history, "MAKE_DUE_EVERY", 0.0)
    assert newer.trim(hour) == 3


def test_a_topic_that_is_due_on_the_second_is_trimmed(database: DatabaseHistory) -> None:
    append(database, "build", 4)
    three = keep(0, 3)
    database.trim(keep(0, 10))
    StoredTopic.objects.update(trim_at=Now() - datetime.timedelta(seconds=1))
    if connection.vendor == "sqlite":  # as its Now() writes a whole second
        whole_second = Concat(Cast(TruncSecond("trim_at"), CharField()), Value(".000"))
        StoredTopic.objects.update(trim_at=whole_second)
    database._retention = three
    assert database.trim(three) == 1
