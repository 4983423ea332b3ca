"""In whatever process and transaction it happens: after a fork, in manual transactions, in test cases that never
commit, in another database. Two event loops in one process are in tests/test_roster.py, real servers with workers in
tests/e2e/test_processes.py.
"""

from __future__ import annotations

import sys

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.test import TestCase, override_settings

from livefeed import publish
from livefeed.history import get_history
from livefeed.roster import Roster
from livefeed.testing import capture_events, open_stream
from tests.processes import run
from tests.reading import numbers
from tests.testapp.models import Article, Elsewhere
from tests.writing import PATIENCE, database_url, rolled_back

pytest_plugins = ["tests.reading_fixtures"]

PLAIN = "plain"
ARTICLES = "testapp.article"
ELSEWHERE = "testapp.elsewhere"
MEMORY = "livefeed.history.memory.MemoryHistory"
EACH = 5

# The parent has loaded the site and published, as a server does that loads before it forks. Then both do the same.
FORK = f"""
import asyncio, os, sys
from django.conf import settings
settings.LIVEFEED_LOOK_INTERVAL = 0.05
import django
django.setup()
from django.core.asgi import get_asgi_application
from django.db import connections
from livefeed import apublish, cursor, publish
from livefeed.testing import open_stream

application = get_asgi_application()
publish({PLAIN!r}, {{"n": -1}})
since = cursor({PLAIN!r})
connections.close_all()
child = os.fork()

async def serve():
    found = []
    async with open_stream({PLAIN!r}, cursor=since, application=application, timeout={PATIENCE}) as stream:
        assert (await stream.next()).json["resumed"] is True
        for n in range({EACH}):
            await apublish({PLAIN!r}, {{"n": n if child else n + 100}})
        while len(found) < 2 * {EACH}:
            n = (await stream.next()).json["n"]
            found += [n] if n >= 0 else []  # the first may have got its number behind the cursor, by the relay
    return found

os.write(1, f"{{asyncio.run(serve())}}\\n".encode())  # at once, so that neither writes into the other's line
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.django_db(transaction=True)
def test_after_a_fork_parent_and_child_publish_and_serve_and_both_get_the_events_of_both() -> None:
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "LIVEFEED_TEST_DATABASE": database_url()}
    one, other = run([sys.executable, "-c", FORK], env=env, limit=PATIENCE).splitlines()
    assert one == other
    found = [int(n) for n in one.strip("[]").split(",")]
    assert [n for n in found if n < 100] == list(range(EACH))
    assert [n for n in found if n >= 100] == list(range(100, 100 + EACH))


async def test_without_autocommit_readers_get_what_was_committed_by_a_look(roster: Roster) -> None:
    """Nobody can be told of such a commit, so nobody is: the hub finds what it left."""

    def work(n: int, *, keep: bool) -> None:
        transaction.set_autocommit(False)
        try:
            publish(PLAIN, {"n": n})
            (transaction.commit if keep else transaction.rollback)()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
            connections.close_all()

    async with open_stream(PLAIN) as stream:
        await stream.next()
        await sync_to_async(work)(1, keep=False)
        await sync_to_async(work)(2, keep=True)
        assert numbers([await stream.next()]) == [2]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
async def test_a_change_in_another_database_reaches_readers_after_its_commit(roster: Roster) -> None:
    def phantom() -> None:
        with rolled_back("other"):
            Elsewhere.objects.create(text="phantom")

    def real() -> None:
        with transaction.atomic(using="other"):
            Elsewhere.objects.create(text="real")
            assert get_history().heads([ELSEWHERE]) == {}

    async with open_stream(ELSEWHERE) as stream:
        await stream.next()
        await sync_to_async(phantom)()
        await sync_to_async(real)()
        assert (await stream.next()).json["text"] == "real"


class WithoutTransactions(TestCase):
    """A test case that never commits, on a history that has no transactions."""

    @override_settings(LIVEFEED_HISTORY=MEMORY)
    def test_with_the_history_in_memory_what_is_captured_is_published_and_can_be_read_back(self) -> None:
        with capture_events(ARTICLES) as events:
            with self.captureOnCommitCallbacks(execute=True):
                Article.objects.create(title="Hello")
                publish(ARTICLES, {"title": "By hand"})
            read = get_history().read(ARTICLES, 0, 10).events
        assert [(event.seq, event.data["title"]) for event in read] == [(1, "Hello"), (2, "By hand")]
        assert list(read) == events

    @override_settings(LIVEFEED_HISTORY=MEMORY)
    def test_with_the_history_in_memory_what_is_rolled_back_is_not_published(self) -> None:
        with self.captureOnCommitCallbacks(execute=True), rolled_back():
            Article.objects.create(title="phantom")
        assert get_history().heads([ARTICLES]) == {}
