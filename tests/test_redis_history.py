"""The history in Redis, on servers of the tests' own: the contract, and what happens when Redis loses something."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from livefeed.events import Event, new_event
from livefeed.history import History
from livefeed.history.redis import RedisHistory
from livefeed.testing import HistoryContract

from .processes import free_port, poll
from .services import RedisServer

pytestmark = pytest.mark.needs("redis")

REDIS = "livefeed.history.redis.RedisHistory"
SERIAL = itertools.count()


def some(topic: str, *numbers: int) -> list[Event]:
    return [new_event(topic, {"n": number}, "tick") for number in numbers]


def numbers(events: Any) -> list[int]:
    return [event.data["n"] for event in events]


def seqs(history: History, topic: str) -> list[int | None]:
    return [event.seq for event in history.read(topic, 0, 10_000).events]


def new_history(url: str, settings: Any, prefix: str = "") -> RedisHistory:
    """Return a history of a site of its own."""
    settings.LIVEFEED_REDIS = url
    settings.LIVEFEED_PREFIX = prefix or f"site-{next(SERIAL)}"
    return RedisHistory()


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
