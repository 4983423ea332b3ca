"""What writing costs, counted: statements and Redis commands, which no machine makes faster or slower.

BEGIN, COMMIT and savepoints are not counted, nor what the site's own save takes, which is one statement in each test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
from channels.layers import channel_layers
from django.db import connection, transaction
from redis import Redis

from livefeed import LiveFeed, apublish, publish
from livefeed.events import new_event
from livefeed.history import get_history
from livefeed.redis_server import Server
from livefeed.roster import Roster
from livefeed.testing import open_stream

from .testapp.models import Author, Note
from .writing import statements

pytest_plugins = ["tests.reading_fixtures"]
pytestmark = pytest.mark.django_db(transaction=True)

#: By database: writing in a transaction, numbering after it, writing and numbering at once.
WRITE = 1
NUMBER = {"postgresql": 1, "mysql": 4, "sqlite": 5}
APPEND = {"postgresql": 1, "mysql": 4, "sqlite": 5}
#: Reading a row again under a lock: SQLite locks by a statement of its own.
READ = {"postgresql": 1, "mysql": 1, "sqlite": 2}


class AuthorFeed(LiveFeed):
    model = Author
    fields = ["name"]


@pytest.fixture(autouse=True)
def feed(with_feed: Callable[[type[LiveFeed]], None]) -> None:
    """A feed whose topic is there and has an event: only the first one costs more."""
    with_feed(AuthorFeed)
    publish("testapp.author", "first")
    publish("build", "first")


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Count this connection's statements."""
    with statements() as seen:
        yield lambda: len([sql for sql in seen if not sql.startswith(("BEGIN", "SAVEPOINT", "RELEASE", "SET TRANS"))])


def cost(work: Callable[[], object]) -> int:
    """Return how many statements something takes."""
    with counted() as count:
        work()
    return count()


def save(name: str = "x") -> Author:
    return Author.objects.create(name=name)


@transaction.atomic
def save_in_a_transaction(saves: int = 1) -> None:
    for _ in range(saves):
        save()


def test_a_save_in_a_transaction_costs_one_statement_there_and_one_numbering_after_it() -> None:
    assert cost(save_in_a_transaction) == 1 + WRITE + NUMBER[connection.vendor]


def test_a_save_in_autocommit_costs_a_reading_and_one_that_writes_and_numbers() -> None:
    assert cost(save) == 1 + READ[connection.vendor] + APPEND[connection.vendor]


def test_a_thousand_saves_in_one_transaction_are_written_by_a_few_statements_and_numbered_at_once() -> None:
    """Elsewhere than on PostgreSQL 150 are written by one statement, and 400 get their numbers by one."""
    writes, runs = (2, 0) if connection.vendor == "postgresql" else (7, 2)
    assert cost(lambda: save_in_a_transaction(1000)) == 1000 + writes * WRITE + NUMBER[connection.vendor] + runs


def test_publishing_outside_of_a_transaction_costs_one_that_writes_and_numbers() -> None:
    assert cost(lambda: publish("build", 1)) == APPEND[connection.vendor]


def test_a_fleeting_event_costs_no_statement() -> None:
    assert cost(lambda: publish("build", 1, store=False)) == 0


def test_a_hundred_events_that_are_appended_together_cost_as_much_as_one() -> None:
    events = [new_event("build", number, "tick") for number in range(100)]
    assert cost(lambda: get_history().append(events)) == APPEND[connection.vendor]


def test_what_is_published_to_several_topics_is_written_together_and_numbered_topic_by_topic() -> None:
    publish("testapp.note:a", "first")
    publish("testapp.note:of-None", "first")

    @transaction.atomic
    def work(saves: int) -> None:
        for _ in range(saves):
            Note.objects.create(board="a", text="x")

    numbering = 2 * NUMBER[connection.vendor]
    read_again = 1  # for get_topics() and get_data() of the site's own may ask for whatever the database made of it
    writes = 1 if connection.vendor == "postgresql" else 2
    for saves, writing in ((1, WRITE), (100, writes * WRITE)):  # whose events take turns on the two topics
        assert cost(lambda saves=saves: work(saves)) == saves * (1 + read_again) + writing + numbering


def test_no_cost_depends_on_how_much_history_or_how_many_topics_there_are() -> None:
    before = (cost(save), cost(save_in_a_transaction), cost(lambda: publish("build", 1)))
    history = get_history()
    history.append([new_event("build", number, "tick") for number in range(2000)])
    history.append([new_event(f"build:{number}", 1, "tick") for number in range(100)])
    assert (cost(save), cost(save_in_a_transaction), cost(lambda: publish("build", 1))) == before


# -- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def redis(redis_url: str, settings: Any) -> AsyncIterator[Redis]:
    """A Redis over which this process sends and receives."""
    conf = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [redis_url]}}
    settings.CHANNEL_LAYERS = {"default": conf}
    layer = channel_layers["default"]
    with Redis.from_url(redis_url) as client:
        yield client
    await layer.flush()


def commands(redis: Redis) -> dict[str, int]:
    """Return how often each command was called since the last time, but for those of connecting and of this look."""
    found = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in redis.info("commandstats").items()}
    redis.config_resetstat()
    return {name: calls for name, calls in found.items() if name in {"publish", "evalsha", "eval"}}


@pytest.mark.needs("redis")
@pytest.mark.parametrize("readers", [1, 30])
async def test_an_event_costs_redis_one_command_however_many_read_it(
    redis: Redis, roster: Roster, readers: int
) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(open_stream("plain")) for _ in range(readers)]
        for stream in streams:
            assert (await stream.next()).type == "livefeed-open"
        commands(redis)
        for number in range(10):
            await apublish("plain", number)
            for stream in streams:
                assert (await stream.next()).json == number
        assert commands(redis) == {"publish": 10}


@pytest.mark.needs("redis")
def test_an_event_costs_the_history_in_redis_two_scripts_in_one_round_trip(
    redis_url: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_REDIS, settings.LIVEFEED_HISTORY = redis_url, "livefeed.history.redis.RedisHistory"
    publish("build", "first")
    trips = []
    pipelined = Server._pipelined
    monkeypatch.setattr(Server, "_pipelined", lambda server, lines: trips.append(lines) or pipelined(server, lines))
    with Redis.from_url(redis_url) as client:
        for prepare in (lambda: None, lambda: publish_many(3000)):
            prepare()
            trips.clear()
            commands(client)
            assert cost(lambda: publish("build", 1)) == 0
            assert len(trips) == 1
            assert commands(client).get("evalsha") == 2


def publish_many(count: int) -> None:
    get_history().append([new_event("build", number, "tick") for number in range(count)])
