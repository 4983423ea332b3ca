"""The relay on a database server: what a writer still does itself, counted, and who does the rest."""

from __future__ import annotations

import datetime
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections, transaction

from livefeed import LiveFeed, event_published, publish
from livefeed.events import encode
from livefeed.history.database import DatabaseHistory
from livefeed.relay import Relay
from livefeed.testing import capture_events
from tests.processes import poll, run
from tests.testapp.models import Author, Plain
from tests.writing import database_url, in_thread, interrupted, look, rolled_back, statements, stored, told

pytest_plugins = ["tests.reading_fixtures"]
pytestmark = pytest.mark.django_db(transaction=True)

LIMIT = 30
INSERT = 'INSERT INTO "livefeed_event"'


class AuthorFeed(LiveFeed):
    model = Author
    fields = ["name"]


@pytest.fixture(autouse=True)
def feed(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    with_feed(AuthorFeed)
    publish("testapp.author", "first")
    publish("build", "first")


@pytest.fixture
def numberings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """Each numbering: the topics, and the name of the thread."""
    found: list[tuple[list[str], str]] = []
    number = DatabaseHistory.number

    def spy(self: DatabaseHistory, topics: Any) -> Any:
        found.append((sorted(topics), threading.current_thread().name))
        return number(self, topics)

    monkeypatch.setattr(DatabaseHistory, "number", spy)
    return found


def ours(seen: list[str]) -> list[str]:
    return [sql for sql in seen if "livefeed_" in sql]


def test_a_transaction_costs_its_writer_one_insert_and_its_numbering_nothing(
    working_relay: Relay, numberings: list[tuple[list[str], str]]
) -> None:
    with statements() as seen, transaction.atomic():
        Author.objects.create(name="Ada")
        Author.objects.create(name="Grace")
    assert [INSERT in sql for sql in ours(seen)] == [True]
    working_relay.flush(LIMIT)
    assert numberings == [(["testapp.author"], "livefeed-relay")]
    assert [event.data["name"] for event in stored("testapp.author")[1:]] == ["Ada", "Grace"]


def test_publishing_outside_of_a_transaction_costs_one_insert(
    working_relay: Relay, numberings: list[tuple[list[str], str]]
) -> None:
    with statements() as seen:
        publish("build", 1)
    assert [INSERT in sql for sql in seen] == [True]
    working_relay.flush(LIMIT)
    assert numberings == [(["build"], "livefeed-relay")]
    assert told("build")[1:] == [("message", 1)]


def test_a_hundred_transactions_one_after_the_other_are_two_numberings(
    working_relay: Relay, numberings: list[tuple[list[str], str]]
) -> None:
    for number in range(100):
        with transaction.atomic():
            publish("build", number)
        with rolled_back():
            publish("build", "phantom")
    working_relay.flush(LIMIT)
    assert len(numberings) == 2
    assert [data for _, data in told("build")[1:]] == list(range(100))


def test_who_looks_on_sees_each_event_once_in_order_with_its_number(working_relay: Relay) -> None:
    with capture_events("build") as seen:
        for number in range(10):
            publish("build", number)
        working_relay.flush(LIMIT)
    assert [(event.seq, event.data) for event in seen] == [(number + 2, number) for number in range(10)]


@pytest.mark.usefixtures("working_relay")
def test_an_observer_may_publish_from_the_relay_s_thread() -> None:
    echoed = threading.Event()

    def echo(*, event: Any, **kwargs: Any) -> None:
        if event.topic == "build":
            with transaction.atomic():
                publish("echo", event.data)
        else:
            echoed.set()

    event_published.connect(echo)
    try:
        publish("build", 1)
        assert echoed.wait(LIMIT)
    finally:
        event_published.disconnect(echo)
    assert told("echo") == [("message", 1)]


def test_what_a_relay_leaves_behind_is_numbered_by_a_look(
    working_relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(working_relay, "take", lambda topics: True)  # as one that is killed just then
        with transaction.atomic():
            publish("build", 1)
    assert len(stored("build")) == 1
    look()
    assert told("build")[1:] == [("message", 1)]


SESSIONS, END = {
    "postgresql": (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()",
        "SELECT pg_terminate_backend({})",
    ),
    "mysql": ("SELECT id FROM information_schema.processlist WHERE db = database()", "KILL {}"),
}.get(connection.vendor, ("", ""))


def sessions() -> set[int]:
    """Return what the server calls the connections to this database: other threads have some, for tests to come."""
    with connection.cursor() as cursor:
        cursor.execute(SESSIONS)
        return {number for (number,) in cursor.fetchall()}


def end(session: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(END.format(session))


def test_a_relay_whose_connection_is_cut_goes_on_with_a_new_one(working_relay: Relay, settings: Any) -> None:
    settings.LIVEFEED_RELAY_PAUSE = 0.001
    before = sessions()
    publish("build", 1)
    poll(lambda: working_relay._waits, limit=LIMIT, what="the relay waits")
    (of_the_relay,) = sessions() - before
    end(of_the_relay)
    publish("build", 2)
    working_relay.flush(LIMIT)
    assert [data for _, data in told("build")[1:]] == [1, 2]


def test_the_thread_gives_its_connection_back_when_it_ends(working_relay: Relay) -> None:
    made: list[Any] = []

    def observe(**kwargs: Any) -> None:
        made.append(connections["default"])

    event_published.connect(observe)
    try:
        publish("build", 1)
        working_relay.flush(LIMIT)
    finally:
        event_published.disconnect(observe)
    assert made[0] is not connections["default"]
    assert made[0].connection is None


WRITER = """
import django
django.setup()
from django.db import transaction
from livefeed import publish

for number in range(50):
    with transaction.atomic():
        publish("build", number)
"""


def test_a_command_that_ends_at_once_leaves_nothing_behind() -> None:
    env = {"LIVEFEED_TEST_DATABASE": database_url(), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    run([sys.executable, "-W", "error", "-c", WRITER], env=env, limit=60)
    assert [data for _, data in told("build")[1:]] == list(range(50))


# -- a save in autocommit ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("working_relay")
def test_a_save_in_autocommit_costs_one_statement_more_where_one_can_lock_and_insert() -> None:
    with statements() as seen:
        author = Author.objects.create(name="Ada")
        author.name = "Grace"
        author.save()
    extra = {"postgresql": 1, "mysql": 2}[connection.vendor]
    assert len([sql for sql in seen if not sql.startswith(("BEGIN", "SAVEPOINT", "SET TRANS"))]) == 2 * (1 + extra)
    assert [(type, data["name"]) for type, data in told("testapp.author")[1:]] == [
        ("created", "Ada"),
        ("updated", "Grace"),
    ]


def somebody_waits() -> bool:
    """Tell whether a statement of this database waits for a lock."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(cursor.fetchone()[0])
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        return bool(int(cursor.fetchone()[1]))


@pytest.mark.usefixtures("working_relay")
def test_a_save_in_autocommit_waits_for_a_deletion_whose_event_is_written_and_says_nothing_after_it() -> None:
    author = Author.objects.create(name="Ada")
    written = threading.Event()

    def delete() -> None:
        with transaction.atomic():
            Author.objects.get(pk=author.pk).delete()
            with transaction.atomic():  # before which it is written
                written.set()
            poll(somebody_waits, limit=LIMIT, what="the save waits for this transaction")

    rival = threading.Thread(target=lambda: in_thread(delete), daemon=True)

    def interlude() -> None:
        rival.start()
        assert written.wait(LIMIT)

    author.name = "ghost"
    with interrupted('UPDATE "testapp_author"', interlude):
        author.save()
    rival.join(LIMIT)
    assert [type for type, _ in told("testapp.author")[1:]] == ["created", "deleted"]


VALUES: dict[str, list[Any]] = {
    "char": ["", "O'Neil % %s \\ 🎉", "trailing ", "x" * 100],
    "text": ["", "two\nlines"],
    "integer": [None, 0, -7, 2**31 - 1],
    "big": [-(2**63), 2**63 - 1],
    "truth": [True, False],
    "number": [None, 0.1, -1e300, 5e-324, 1 / 3],
    "day": [None, datetime.date(2024, 2, 29)],
    "moment": [None, datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=datetime.UTC)],
    "key": [None, uuid.UUID(int=7)],
}


@pytest.mark.usefixtures("working_relay")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_the_row_is_found_to_hold_what_was_saved_whatever_that_is(
    with_feed: Callable[[type[LiveFeed]], None], name: str, value: Any
) -> None:
    class PlainFeed(LiveFeed):
        model = Plain
        fields = list(VALUES)

    with_feed(PlainFeed)
    with statements("SELECT", "livefeed_event") as seen:
        Plain.objects.create(**{name: value})
    compared = {"postgresql": 1, "mysql": 0}[connection.vendor]  # where nobody compares the row is read again
    assert [sql.lstrip().startswith("WITH held") for sql in seen] == [True] * compared
    (event,) = stored("testapp.plain")
    assert event.json == encode({"pk": Plain.objects.get().pk, **PlainFeed().get_data(Plain.objects.get())})


@pytest.mark.usefixtures("working_relay")
def test_what_the_database_has_changed_is_read_again() -> None:
    """By a trigger of the site's: the row never held what the instance holds."""
    with connection.cursor() as cursor:
        for sql in TRIGGER[connection.vendor]:
            cursor.execute(sql)
    try:
        Author.objects.create(name="Ada")
    finally:
        with connection.cursor() as cursor:
            cursor.execute(DROP[connection.vendor])
    assert told("testapp.author")[-1][1]["name"] == "triggered"


TRIGGER = {
    "postgresql": [
        "CREATE OR REPLACE FUNCTION triggered() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN NEW.name = 'triggered'; RETURN NEW; END $$",
        "CREATE TRIGGER triggered BEFORE INSERT ON testapp_author FOR EACH ROW EXECUTE FUNCTION triggered()",
    ],
    "mysql": ["CREATE TRIGGER triggered BEFORE INSERT ON testapp_author FOR EACH ROW SET NEW.name = 'triggered'"],
}
DROP = {"postgresql": "DROP FUNCTION triggered CASCADE", "mysql": "DROP TRIGGER triggered"}
