"""The history in Redis, on servers of the tests' own: the contract, and what happens when Redis loses something."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections, transaction
from django.template import Context, Template
from django.test import RequestFactory, override_settings
from news.models import Article as NewsArticle
from redis import Redis

from livefeed import apublish, backlog, publish
from livefeed.checks import check_settings
from livefeed.cursors import NONE_YET, Position
from livefeed.events import Event, Stretch, new_event
from livefeed.exceptions import HistoryUnavailable
from livefeed.history import Head, History, Retention, get_history, position_of
from livefeed.history import redis as redis_history
from livefeed.history.redis import RedisHistory
from livefeed.redis_server import Call, Server, url_problem
from livefeed.resuming import AHEAD, EPOCH, TRIMMED, lost
from livefeed.roster import get_roster
from livefeed.testing import EventStreamClient, HistoryContract, ServerSentEvent, open_stream

from .processes import free_port, poll, run
from .services import RedisServer
from .testapp.models import Article
from .writing import at_once, stored

pytest_plugins = ["tests.reading_fixtures"]
pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True)]
LIMIT = 30.0

REDIS = "livefeed.history.redis.RedisHistory"
SERIAL = itertools.count()


def some(topic: str, *numbers: int) -> list[Event]:
    return [new_event(topic, {"n": number}, "tick") for number in numbers]


def seqs(history: History, topic: str) -> list[int | None]:
    return [event.seq for event in history.read(topic, 0, 10_000).events]


def new_history(url: str, settings: Any, prefix: str = "") -> RedisHistory:
    """Return a history of a site of its own, beside the one that the settings name."""
    settings.LIVEFEED_PREFIX = prefix or f"site-{next(SERIAL)}"
    with override_settings(LIVEFEED_REDIS=url):
        return RedisHistory()


class KeepingRedis(RedisServer):
    """A Redis server that loses nothing when it is killed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.command += ["--appendonly", "yes", "--appendfsync", "always"]


@pytest.fixture
def keeping_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with KeepingRedis(tmp_path) as server:
        yield server


@pytest.fixture
def history(private_redis: RedisServer, settings: Any) -> RedisHistory:
    """The history of a site on a Redis of this test's own."""
    return new_history(private_redis.url, settings)


@pytest.fixture(autouse=True)
def own_backlog(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A backlog of the test's own, whose thread ends with the test."""
    monkeypatch.setattr(backlog, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(backlog, "_backlog", backlog.Backlog())
    yield
    monkeypatch.setattr(backlog, "SECONDS", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(RedisHistory, "renew_epoch", lambda self, topics=None: 0)
        caught_up()


def caught_up() -> None:
    """Wait until nothing waits for the history any more."""
    names = lambda: [thread.name for thread in threading.enumerate()]  # noqa: E731
    poll(lambda: "livefeed-backlog" not in names(), limit=LIMIT, what="nothing waits any more")


def use(url: str, settings: Any, prefix: str = "") -> RedisHistory:
    """Let the site use a Redis."""
    settings.LIVEFEED_REDIS = url
    settings.LIVEFEED_PREFIX = prefix or f"site-{next(SERIAL)}"
    settings.LIVEFEED_HISTORY = "livefeed.history.memory.MemoryHistory"  # so that it is made anew
    settings.LIVEFEED_HISTORY = REDIS
    made = get_history()
    assert isinstance(made, RedisHistory)
    return made


# -- the contract ---------------------------------------------------------------------------------------------------


class RedisContract(HistoryContract):
    many = 1100

    @pytest.fixture(autouse=True)
    def _settings(self, settings: Any) -> None:
        self.settings = settings

    def age(self, topic: str, seconds: float) -> None:
        assert isinstance(self.history, RedisHistory)
        client = self.history.server.client
        key = f"livefeed:{self.settings.LIVEFEED_PREFIX}:{{{topic}}}:events"
        entries = client.xrange(key)
        client.delete(key)
        for entry, fields in entries:
            seq, _, moment = entry.partition("-")
            client.xadd(key, fields, f"{seq}-{int(moment) - int(seconds * 1000)}")


class TestRedisHistory(RedisContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.url = redis_url

    def make_history(self) -> History:
        return new_history(self.url, self.settings)


class RedisClusterNode(RedisServer):
    """A Cluster of one node, which holds all slots."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        self.url = self.url.replace("redis://", "redis+cluster://")

    def start(self) -> Any:
        super().start()
        with Redis(port=int(self.name.split()[-1]), decode_responses=True) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            poll(lambda: client.cluster("info")["cluster_state"] == "ok", limit=30, what="the Cluster is complete")
        return self


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisClusterNode(tmp_path_factory.mktemp("cluster")) as node:
        yield node.url


class TestRedisHistoryOnACluster(RedisContract):
    """A node refuses a script whose keys lie in several slots, whoever holds them."""

    @pytest.fixture(autouse=True)
    def _server(self, cluster_url: str) -> None:
        self.url = cluster_url

    def make_history(self) -> History:
        return new_history(self.url, self.settings)

    def test_the_keys_of_one_script_lie_in_one_slot(self) -> None:
        self.history.append([*some("one", 1), *some("two", 1)])
        assert isinstance(self.history, RedisHistory)
        client = self.history.server.client
        keys = sorted(client.scan_iter(f"livefeed:{self.settings.LIVEFEED_PREFIX}:*"))
        assert len(keys) == 5
        assert len({client.keyslot(key) for key in keys if "{one}" in key}) == 1
        assert len({client.keyslot(key) for key in keys}) > 1


# -- what Redis loses -----------------------------------------------------------------------------------------------


def end(history: History, topic: str) -> Position:
    return position_of(history.heads([topic])[topic])


def test_a_flushed_redis_begins_a_new_epoch(history: RedisHistory) -> None:
    history.append(some("build", 1, 2))
    before = end(history, "build")
    history.server.client.flushall()
    assert history.heads(["build"]) == {}
    (stretch,) = history.append(some("build", 3))
    assert [event.seq for event in stretch.events] == [1]
    assert lost(before, history.heads(["build"])["build"]) == EPOCH


def test_a_topic_whose_hash_was_evicted_begins_anew(history: RedisHistory, settings: Any) -> None:
    history.append(some("build", 1, 2))
    before = end(history, "build")
    history.server.client.delete(f"livefeed:{settings.LIVEFEED_PREFIX}:{{build}}:topic")
    history.append(some("build", 3))
    assert seqs(history, "build") == [1]
    assert lost(before, history.heads(["build"])["build"]) == EPOCH


def test_a_redis_that_restarted_begins_a_new_epoch_even_if_it_lost_nothing(
    keeping_redis: RedisServer, settings: Any
) -> None:
    history = new_history(keeping_redis.url, settings)
    history.append(some("build", 1, 2, 3))
    before = end(history, "build")
    keeping_redis.kill()
    keeping_redis.start()
    assert end(new_history(keeping_redis.url, settings, settings.LIVEFEED_PREFIX), "build") == before
    history = new_history(keeping_redis.url, settings, settings.LIVEFEED_PREFIX)
    history.append(some("build", 4))
    head = history.heads(["build"])["build"]
    assert (head.seq, seqs(history, "build")) == (4, [2, 3, 4])
    assert lost(before, head) == EPOCH
    assert lost(NONE_YET, head) == TRIMMED
    epoch = head.epoch
    history.append(some("build", 5))
    assert end(history, "build") == Position(epoch, 5)


def replicate(replica: RedisHistory, port: int) -> None:
    client = replica.server.client
    client.replicaof("127.0.0.1", port)
    poll(lambda: client.info("replication")["master_link_status"] == "up", limit=LIMIT, what="the replica is connected")


def cut_off(replica: RedisHistory) -> None:
    """Leave a replica without its master."""
    replica.server.client.replicaof("127.0.0.1", free_port())


def promote(replica: RedisHistory) -> None:
    replica.server.client.replicaof("NO", "ONE")


def has(history: RedisHistory, topic: str, seq: int) -> Callable[[], bool]:
    return lambda: history.heads([topic]).get(topic, Head("", 0)).seq == seq


def port_of(server: RedisServer) -> int:
    return int(server.name.split()[-1])


@pytest.fixture
def second_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("second")) as server:
        yield server


def test_a_replica_that_was_promoted_after_it_missed_events_begins_a_new_epoch(
    private_redis: RedisServer, second_redis: RedisServer, settings: Any
) -> None:
    master = new_history(private_redis.url, settings)
    replica = new_history(second_redis.url, settings, settings.LIVEFEED_PREFIX)
    replicate(replica, port_of(private_redis))
    master.append(some("build", 1, 2, 3))
    poll(has(replica, "build", 3), limit=LIMIT, what="the replica has the events")
    cut_off(replica)
    master.append(some("build", 4, 5))
    before = end(master, "build")
    promote(replica)
    assert lost(before, replica.heads(["build"])["build"]) == AHEAD
    (stretch,) = replica.append(some("build", 6, 7, 8, 9))
    assert [event.seq for event in stretch.events] == [4, 5, 6, 7]
    assert lost(before, replica.heads(["build"])["build"]) == EPOCH


def test_a_master_that_was_a_replica_for_a_while_begins_a_new_epoch(
    private_redis: RedisServer, second_redis: RedisServer, settings: Any
) -> None:
    """It forgot what it had and the other had not, and it is the same process as before."""
    one = new_history(private_redis.url, settings)
    two = new_history(second_redis.url, settings, settings.LIVEFEED_PREFIX)
    replicate(two, port_of(private_redis))
    one.append(some("build", 1))
    poll(has(two, "build", 1), limit=LIMIT, what="the replica has the event")
    cut_off(two)
    one.append(some("build", 2))
    before = end(one, "build")
    promote(two)
    replicate(one, port_of(second_redis))
    poll(has(one, "build", 1), limit=LIMIT, what="the old master is what the new one is")
    promote(one)
    one.append(some("build", 3, 4))
    assert lost(before, one.heads(["build"])["build"]) == EPOCH


def test_a_master_that_became_a_replica_is_connected_to_anew(
    private_redis: RedisServer, second_redis: RedisServer, history: RedisHistory
) -> None:
    """Its address may lead to the new master by now, and it does not close connections by itself."""
    history.append(some("build", 1))
    connection = history.server.client.client_id()
    replicate(history, port_of(second_redis))
    with pytest.raises(HistoryUnavailable, match=r"(?i)read.?only"):
        history.append(some("build", 2))
    assert history.server.client.client_id() > connection


def test_large_events_go_in_several_round_trips(history: RedisHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    call_all = Server.call_all

    def spies(self: Server, calls: list[Call]) -> list[Any]:
        sizes.append(sum(len(str(arg)) for call in calls for arg in call.args))
        return call_all(self, calls)

    monkeypatch.setattr(Server, "call_all", spies)
    stretches = history.append([new_event("build", "x" * 200_000, "tick") for _ in range(30)])
    assert [event.seq for stretch in stretches for event in stretch.events] == list(range(1, 31))
    assert max(sizes) < 1_500_000


def test_a_flushed_script_cache_is_filled_again(history: RedisHistory) -> None:
    for number in range(1, 4):
        history.server.client.script_flush()
        history.append([*some("one", number), *some("two", number)])
        history.server.client.script_flush()
        assert seqs(history, "one") == seqs(history, "two") == list(range(1, number + 1))
        history.server.client.script_flush()
        assert set(history.moved(None)[0]) == {"one", "two"}


def test_a_look_from_the_future_is_not_deaf(history: RedisHistory) -> None:
    """The clock was set back, or another server has another one."""
    _, marker = history.moved(None)
    history.append(some("build", 1))
    moved, marker = history.moved(marker + 3600 * 10**6)
    assert set(moved) == {"build"}
    history.append(some("other", 1))
    moved, _ = history.moved(marker)
    assert "other" in moved


def test_a_look_after_a_flush_names_what_came_since(history: RedisHistory) -> None:
    history.append(some("build", 1))
    _, marker = history.moved(None)
    history.server.client.flushall()
    history.append(some("build", 2))
    moved, _ = history.moved(marker)
    assert moved["build"].seq == 1


# -- several at once ------------------------------------------------------------------------------------------------


def test_two_sites_on_one_redis_never_see_each_other_s_events(redis_url: str, settings: Any) -> None:
    def site(name: str) -> RedisHistory:
        return new_history(redis_url, settings, name)

    site("mine").append(some("build", 1, 2))
    _, marker = site("theirs").moved(None)
    site("mine").append([*some("build", 3), *some("other", 1)])
    theirs = site("theirs")
    assert theirs.moved(marker)[0] == {}
    assert theirs.heads(["build", "other"]) == {}
    assert theirs.read("build", 0, 10).events == ()
    assert theirs.trim(lambda topic: Retention(0, 1)) == 0
    assert theirs.renew_epoch() == 0
    theirs.append(some("build", 1))
    assert seqs(site("mine"), "build") == [1, 2, 3]
    assert seqs(site("theirs"), "build") == [1]


APPEND = """
import sys
import django
from django.conf import settings

django.setup()
settings.LIVEFEED_REDIS, settings.LIVEFEED_PREFIX, name = sys.argv[1:]
settings.LIVEFEED_HISTORY = "livefeed.history.redis.RedisHistory"
from livefeed.events import new_event
from livefeed.history import get_history

history = get_history()
"""

MANY = """
for number in range(200):
    topics = ["one", "two"] if number % 2 else ["two", "one"]
    history.append([new_event(topic, [name, number], "tick") for topic in topics])
"""

FORK = """
import os
history.append([new_event("build", 0, "tick")])
children = []
for child in range(3):
    pid = os.fork()
    if not pid:
        for number in range(50):
            history.append([new_event("build", number, "tick")])
        os._exit(0)
    children.append(pid)
for number in range(50):
    history.append([new_event("build", number, "tick")])
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
"""


def run_process(code: str, *args: str) -> str:
    return run([sys.executable, "-c", APPEND + code, *args], env={"DJANGO_SETTINGS_MODULE": "tests.settings"}, limit=60)


def test_processes_that_append_at_once_leave_no_hole_and_keep_each_one_s_order(redis_url: str, settings: Any) -> None:
    history = new_history(redis_url, settings)
    at_once([lambda name=name: run_process(MANY, redis_url, settings.LIVEFEED_PREFIX, name) for name in "abc"])
    for topic in ("one", "two"):
        events = history.read(topic, 0, 1000).events
        assert [event.seq for event in events] == list(range(1, 601))
        for name in "abc":
            assert [event.data[1] for event in events if event.data[0] == name] == list(range(200))


def test_a_process_that_was_forked_has_connections_of_its_own(redis_url: str, settings: Any) -> None:
    history = new_history(redis_url, settings)
    run_process(FORK, redis_url, settings.LIVEFEED_PREFIX, "parent")
    assert seqs(history, "build") == list(range(1, 202))


# -- Redis is away --------------------------------------------------------------------------------------------------


def test_a_save_succeeds_while_redis_is_down_and_its_event_arrives_when_it_is_back(
    keeping_redis: RedisServer, settings: Any
) -> None:
    use(keeping_redis.url, settings)
    publish("testapp.article", {"title": "before"})
    keeping_redis.kill()
    with transaction.atomic():
        Article.objects.create(title="in a transaction")
    Article.objects.create(title="in autocommit")
    assert Article.objects.count() == 2
    publish("testapp.article", {"title": "by hand"})
    assert backlog.waiting() >= 3
    keeping_redis.start()
    caught_up()
    kept = get_history().read("testapp.article", 0, 100).events
    # The very first event goes with its epoch.
    assert [event.data["title"] for event in kept] == ["in a transaction", "in autocommit", "by hand"]
    assert [event.seq for event in kept] == [2, 3, 4]


def test_a_redis_that_hangs_holds_up_one_save_for_a_moment_and_nothing_is_doubled(
    private_redis: RedisServer, settings: Any
) -> None:
    """It goes on with what it was sent while it hung, and nobody waits for that any more."""
    use(private_redis.url, settings)
    publish("build", 0)
    os.kill(private_redis.pid, signal.SIGSTOP)
    try:
        for number in range(1, 4):
            publish("build", number)
        assert backlog.waiting() == 3
    finally:
        os.kill(private_redis.pid, signal.SIGCONT)
    caught_up()
    assert [event.data for event in stored("build")] == [0, 1, 2, 3]


def appended(history: RedisHistory, events: list[Event]) -> list[Stretch]:
    """Append events for which it may be too early, again and again."""
    stretches: list[Stretch] = []

    def append() -> bool:
        try:
            stretches.extend(history.append(events))
        except HistoryUnavailable:
            return False
        return True

    poll(append, limit=LIMIT, what="it may be tried again")
    return stretches


def test_an_append_whose_answer_was_lost_is_not_doubled(
    private_redis: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(private_redis.url, settings)
    publish("build", "before")
    call_all = Server.call_all
    answers_lost = iter([True, True])

    def loses_answers(self: Server, calls: list[Call]) -> list[Any]:
        answers = call_all(self, calls)
        if len(calls) > 1 and next(answers_lost, False):
            raise HistoryUnavailable("the answer was lost")
        return answers

    monkeypatch.setattr(Server, "call_all", loses_answers)
    publish("build", "once")
    publish("build", "after")
    caught_up()
    assert [event.data for event in stored("build")] == ["before", "once", "after"]


@pytest.mark.parametrize(
    "gone",
    [lambda history: history.trim(lambda topic: Retention(0, 1)), lambda history: history.renew_epoch(["build"])],
    ids=["trimmed", "dropped with its epoch"],
)
def test_what_was_appended_without_an_answer_and_is_gone_since_comes_again_in_a_new_epoch_and_in_order(
    history: RedisHistory, monkeypatch: pytest.MonkeyPatch, gone: Callable[[RedisHistory], int]
) -> None:
    history.append(some("other", 1))
    call_all = Server.call_all

    def loses_the_answer(self: Server, calls: list[Call]) -> list[Any]:
        call_all(self, calls)
        raise HistoryUnavailable("the answer was lost")

    events = some("build", 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Server, "call_all", loses_the_answer)
        with pytest.raises(HistoryUnavailable, match="lost"):
            history.append(events)
    before = end(history, "build")
    assert gone(history) == 1
    appended(history, events)
    head = history.heads(["build"])["build"]
    assert (before.seq, head.seq) == (2, 4)
    assert [lost(Position(before.epoch, seq), head) for seq in (0, 1, 2)] == ["epoch", "epoch", "epoch"]
    assert [event.data["n"] for event in history.read("build", 2, 10).events] == [1, 2]


def test_of_a_batch_that_was_appended_in_part_the_rest_follows(
    history: RedisHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others appended meanwhile: the numbers of what was there and of what follows are not consecutive."""
    monkeypatch.setattr(redis_history, "BATCH", 2)
    events = some("build", 1, 2, 3)
    call_all = Server.call_all

    def fails_later(self: Server, calls: list[Call]) -> list[Any]:
        if any(event.id in call.args for call in calls for event in events[2:]):
            raise HistoryUnavailable("not now")
        return call_all(self, calls)

    with monkeypatch.context() as patch:
        patch.setattr(Server, "call_all", fails_later)
        with pytest.raises(HistoryUnavailable):
            history.append(events)
    monkeypatch.setattr(redis_history, "BATCH", 500)
    history.append(some("build", 99))
    retried = appended(history, events)
    assert [[event.seq for event in stretch.events] for stretch in retried] == [[1, 2], [4]]
    assert [event.data["n"] for event in history.read("build", 0, 10).events] == [1, 2, 99, 3]


def test_an_append_that_may_still_take_effect_is_not_tried_again_yet(
    history: RedisHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(self: Server, calls: list[Call]) -> list[Any]:
        raise HistoryUnavailable("no answer")

    history.append(some("build", 1))
    monkeypatch.setattr(redis_history, "GOOD_FOR", 600_000)
    event = some("build", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Server, "call_all", hangs)
        with pytest.raises(HistoryUnavailable, match="no answer"):
            history.append(event)
    for _ in range(2):
        with pytest.raises(HistoryUnavailable, match="too early"):
            history.append(event)
    history.append(some("build", 3))
    assert [event.data["n"] for event in history.read("build", 0, 10).events] == [1, 3]


def test_an_append_that_comes_too_late_has_no_effect(history: RedisHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    history.append(some("build", 1))
    with monkeypatch.context() as patch:
        patch.setattr(redis_history, "GOOD_FOR", -1)
        with pytest.raises(HistoryUnavailable, match="too late"):
            history.append(some("build", 2))
    assert seqs(history, "build") == [1]


def test_writers_go_on_while_redis_is_killed_and_started_again_and_nothing_is_lost_or_doubled(
    keeping_redis: RedisServer, settings: Any
) -> None:
    use(keeping_redis.url, settings)
    publish("build", ["first", 0])  # which goes with its epoch
    go_on = threading.Event()

    def writer(name: str) -> Callable[[], None]:
        def write() -> None:
            for number in range(150):
                publish("build", [name, number])
                if number == 75:
                    go_on.wait(LIMIT)

        return write

    def restarts() -> None:
        poll(lambda: get_history().heads(["build"])["build"].seq > 40, limit=LIMIT, what="the writers are at work")
        keeping_redis.kill()
        go_on.set()
        poll(lambda: backlog.waiting() > 10, limit=LIMIT, what="events wait for Redis")
        keeping_redis.start()

    at_once([writer("a"), writer("b"), restarts])
    caught_up()
    events = get_history().read("build", 0, 1000).events
    assert [event.seq for event in events] == list(range(2, 302))
    for name in "ab":
        assert [number for who, number in (event.data for event in events) if who == name] == list(range(150))


# -- the whole path -------------------------------------------------------------------------------------------------


@pytest.fixture
async def site(layer: Any, settings: Any) -> AsyncIterator[None]:
    """A site whose processes look often."""
    settings.LIVEFEED_LOOK_INTERVAL = 0.05
    yield
    await get_roster().close()
    await sync_to_async(connections.close_all)()


async def opened(stream: EventStreamClient) -> ServerSentEvent:
    opening = await stream.next()
    assert opening.type == "livefeed-open"
    return opening


@pytest.mark.usefixtures("site")
async def test_the_whole_path_works_on_redis(redis_url: str, settings: Any) -> None:
    use(redis_url, settings)
    async with open_stream("testapp.article", "plain") as stream:
        await opened(stream)
        await sync_to_async(create_in_transaction)("Hello")
        await apublish("plain", {"n": 1})
        first, second = await stream.take(2)
    assert {first.topic, second.topic} == {"testapp.article", "plain"}
    for number in range(2, 500):
        await apublish("plain", {"n": number})
    async with open_stream("testapp.article", "plain", cursor=second.id) as stream:
        assert (await opened(stream)).json["resumed"] is True
        assert [event.json["n"] for event in await stream.take(498)] == list(range(2, 500))
        cursor = stream.parser.last_event_id
    settings.LIVEFEED_RETENTION_EVENTS = 5
    await sync_to_async(call_command)("livefeed_prune", verbosity=0)
    await get_roster().close()  # what opens now is a process that knows nothing
    async with open_stream("testapp.article", "plain", cursor=second.id) as stream:
        assert (await opened(stream)).json["resumed"] is False
        assert (await stream.next()).json["reason"] == TRIMMED
    async with open_stream("testapp.article", "plain", cursor=cursor) as stream:
        assert (await opened(stream)).json["resumed"] is True


def create_in_transaction(title: str) -> None:
    with transaction.atomic():
        Article.objects.create(title=title)


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("stays", [True, False], ids=["in the same process", "in another process"])
async def test_after_a_flush_a_client_that_comes_back_is_told(redis_url: str, settings: Any, stays: bool) -> None:
    history = use(redis_url, settings)
    for number in range(3):
        await apublish("plain", {"n": number})
    async with AsyncExitStack() as stack:
        if stays:
            other = await stack.enter_async_context(open_stream("plain"))
            await opened(other)
        async with open_stream("plain") as stream:
            cursor = (await opened(stream)).id
        await sync_to_async(flush)(history)
        if not stays:
            await get_roster().close()
        async with open_stream("plain", cursor=cursor) as stream:
            await opened(stream)
            if stays:  # its tail still ends where the cursor does: nothing is missed so far
                await apublish("plain", {"n": 3})
            reset = await stream.next()
            assert (reset.type, reset.json["reason"]) == ("livefeed-reset", EPOCH)
            await apublish("plain", {"n": 4})
            assert (await stream.next()).json == {"n": 4}


def flush(history: RedisHistory) -> None:
    for key in list(history.server.client.scan_iter("livefeed:*")):
        history.server.client.delete(key)


@pytest.mark.usefixtures("site")
async def test_when_redis_comes_back_empty_readers_are_told_and_go_on(
    private_redis: RedisServer, settings: Any
) -> None:
    use(private_redis.url, settings)
    await apublish("plain", {"n": 1})
    async with open_stream("plain", timeout=LIMIT) as stream:
        await opened(stream)
        private_redis.kill()
        await apublish("plain", {"n": 2})
        private_redis.start()
        assert (await stream.next()).type == "livefeed-reset"
        await apublish("plain", {"n": 3})
        assert (await stream.next()).json == {"n": 3}
    await sync_to_async(caught_up)()


@pytest.mark.usefixtures("site")
async def test_when_a_replica_takes_over_readers_are_told_and_go_on(
    private_redis: RedisServer, second_redis: RedisServer, settings: Any
) -> None:
    master = use(private_redis.url, settings)
    replica = new_history(second_redis.url, settings, settings.LIVEFEED_PREFIX)
    replicate(replica, port_of(private_redis))
    await apublish("plain", {"n": 1})
    poll(has(replica, "plain", 1), limit=LIMIT, what="the replica has the event")
    async with open_stream("plain") as stream:
        await opened(stream)
        cut_off(replica)
        await apublish("plain", {"n": 2})
        assert (await stream.next()).json == {"n": 2}
        promote(replica)
        private_redis.kill()
        use(second_redis.url, settings, settings.LIVEFEED_PREFIX)
        await apublish("plain", {"n": 3})
        assert (await stream.next()).json["reason"] == EPOCH
        await apublish("plain", {"n": 4})
        assert (await stream.next()).json == {"n": 4}
    assert isinstance(master, RedisHistory)


@pytest.mark.usefixtures("site")
async def test_when_the_backlog_gave_up_readers_are_told_without_another_event(
    keeping_redis: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(keeping_redis.url, settings)
    await apublish("plain", {"n": 1})
    async with open_stream("plain", "plain:fresh", timeout=LIMIT) as stream:
        await opened(stream)
        monkeypatch.setattr(backlog, "SECONDS", -1.0)
        keeping_redis.kill()
        with caplog.at_level(logging.ERROR, "livefeed.publishing"):
            await apublish("plain", {"n": 2})
            await apublish("plain:fresh", {"n": 1})
            poll(lambda: caplog.text.count("are lost") == 2, limit=LIMIT, what="the events have been given up")
        keeping_redis.start()
        resets = await stream.take(2)
        assert {reset.type for reset in resets} == {"livefeed-reset"}
        assert {reset.json["topic"] for reset in resets} == {"plain", "plain:fresh"}
    await sync_to_async(caught_up)()


# -- the settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["redis://h:1/0", "rediss://u:p@h", "unix:///tmp/s", "redis+cluster://h", "rediss+cluster://h:1"]
)
def test_urls_of_redis_and_of_clusters_are_understood(url: str) -> None:
    assert url_problem(url) == ""


@pytest.mark.parametrize(
    "url", ["http://h", "redis://:secret/x@h", "redis://h?socket_timeout=x", "redis://h?nonsense=1"]
)
def test_what_is_no_such_url_is_refused_without_telling_it(url: str, settings: Any) -> None:
    assert "LIVEFEED_REDIS" in url_problem(url)
    assert "secret" not in url_problem(url)
    with pytest.raises(ImproperlyConfigured, match="LIVEFEED_REDIS"):
        new_history(url, settings).heads(["build"])


def test_a_redis_that_is_not_there_is_an_unavailable_history(settings: Any) -> None:
    for scheme in ("redis", "redis+cluster"):
        history = new_history(f"{scheme}://127.0.0.1:{free_port()}", settings)
        for call in (
            lambda history=history: history.append(some("build", 1)),
            lambda history=history: history.heads(["build"]),
            lambda history=history: history.moved(None),
            lambda history=history: history.read("build", 0, 1),
            lambda history=history: history.trim(lambda topic: Retention(0, 1)),
            lambda history=history: history.renew_epoch(),
        ):
            with pytest.raises(HistoryUnavailable):
                call()


def errors() -> dict[str, Any]:
    return {message.id: message for message in check_settings() if message.id in {"livefeed.E014", *ABOUT_REDIS}}


ABOUT_REDIS = {"livefeed.E017", "livefeed.E018"}


def test_the_check_is_content_with_a_url_and_asks_no_server(settings: Any) -> None:
    settings.LIVEFEED_REDIS = f"redis://127.0.0.1:{free_port()}/0"
    settings.LIVEFEED_HISTORY = REDIS
    assert errors() == {}


@pytest.mark.parametrize("url", ["", "http://127.0.0.1"])
def test_the_check_says_how_to_set_the_url(settings: Any, url: str) -> None:
    settings.LIVEFEED_REDIS = url
    settings.LIVEFEED_HISTORY = REDIS
    (message,) = errors().values()
    assert (message.id, "LIVEFEED_REDIS" in message.msg) == ("livefeed.E018", True)
    assert "redis://" in message.hint
    settings.LIVEFEED_HISTORY = "livefeed.history.memory.MemoryHistory"
    assert errors() == {}


def test_the_check_says_what_to_install(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LIVEFEED_HISTORY = REDIS
    monkeypatch.setitem(sys.modules, "redis", None)
    (message,) = errors().values()
    assert (message.id, "pip install" in message.hint) == ("livefeed.E017", True)


def test_another_url_is_another_history(redis_url: str, settings: Any) -> None:
    use(redis_url, settings)
    assert isinstance(get_history(), RedisHistory)
    settings.LIVEFEED_REDIS = "redis://127.0.0.1:1/0"
    assert get_history().server.url == "redis://127.0.0.1:1/0"  # type: ignore[attr-defined]


async def test_a_page_is_rendered_while_redis_is_away_and_its_stream_begins_with_a_reset(
    transactional_db: None, redis_url: str, settings: Any, rf: RequestFactory
) -> None:
    await NewsArticle.objects.acreate(title="there")
    request = rf.get("/")
    request.user = AnonymousUser()
    template = Template("{% load livefeed %}{% livefeed 'news.article' %}|{% livefeed_cursor 'news.article' %}")
    use("redis://127.0.0.1:1/0", settings)
    page = await sync_to_async(template.render)(Context({"request": request}))
    assert "there" in page
    use(redis_url, settings)
    async with open_stream("news.article", cursor=page.partition("|")[2]) as stream:
        assert [event.type for event in await stream.take(2)] == ["livefeed-open", "livefeed-reset"]
