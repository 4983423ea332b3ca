"""Leases in Redis, on servers of the tests' own: what happens when Redis is away, or loses something."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from livefeed.checks import check_settings
from livefeed.exceptions import HistoryUnavailable, LimitReached
from livefeed.leases import LeaseRequest, chore, get_leases
from livefeed.leases import redis as redis_leases
from livefeed.leases.redis import RedisLeases
from livefeed.redis_server import Server
from livefeed.roster import Roster
from livefeed.testing import open_stream
from tests.reading import eventually

from .processes import free_port
from .services import RedisServer
from .test_leases import free_places, in_redis, request
from .test_redis_history import RedisClusterNode
from .writing import at_once

pytest_plugins = ["tests.reading_fixtures"]
pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True)]

REDIS = "livefeed.leases.redis.RedisLeases"
PLAIN = "plain"
SERIAL = itertools.count()


def use(url: str, settings: Any, prefix: str = "") -> RedisLeases:
    """Let the site keep its leases in a Redis."""
    settings.LIVEFEED_PREFIX = prefix or f"site-{next(SERIAL)}"
    settings.LIVEFEED_LEASES = "livefeed.leases.database.DatabaseLeases"  # so that it is made anew
    settings.LIVEFEED_REDIS = url
    settings.LIVEFEED_LEASES = REDIS
    made = get_leases()
    assert isinstance(made, RedisLeases)
    return made


@pytest.fixture
def leases(private_redis: RedisServer, settings: Any) -> RedisLeases:
    """The leases of a site on a Redis of this test's own."""
    return use(private_redis.url, settings)


def several(limit: int, **others: str) -> LeaseRequest:
    return request(("user:1", limit), ("topic:build", 10 if limit else 0), **others)


# -- what Redis loses -----------------------------------------------------------------------------------------------


def flush(server: RedisServer, leases: RedisLeases) -> None:
    leases.server.client.flushall()


def restart(server: RedisServer, leases: RedisLeases) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("lose", [flush, restart])
def test_leases_that_redis_lost_are_back_at_the_next_renewal(
    private_redis: RedisServer, leases: RedisLeases, lose: Callable[[RedisServer, RedisLeases], None]
) -> None:
    tokens = {leases.acquire(several(3, client=client)) for client in ("one", "two", "")}
    lose(private_redis, leases)
    assert list(leases.connections()) == []
    assert leases.renew("here") == tokens
    assert {found.token for found in leases.connections(topic="build", holder="user:1")} == tokens
    assert free_places(leases, "user:1", 3) == 0
    assert free_places(leases, "topic:build", 10) == 7
    leases.acquire(several(3, client="two", process="there"))
    assert len(leases.renew("here")) == 2


def test_leases_that_redis_lost_are_back_only_as_far_as_the_limit_goes(
    private_redis: RedisServer, settings: Any
) -> None:
    here, there = use(private_redis.url, settings, "site"), use(private_redis.url, settings, "site")
    tokens = {here.acquire(several(3)) for _ in range(3)}
    here.server.client.flushall()
    new = there.acquire(several(3, process="there"))
    held = here.renew("here")
    assert len(held) == 2
    assert held < tokens
    assert there.renew("there") == {new}
    assert here.renew("here") == held
    assert free_places(here, "topic:build", 10) == 7


def test_a_lease_that_was_evicted_is_back_and_counts_once(leases: RedisLeases, settings: Any) -> None:
    token = leases.acquire(several(2, client="page"))
    leases.server.client.delete(f"livefeed:{settings.LIVEFEED_PREFIX}:{{leases}}:lease:{token}")
    assert leases.renew("here") == {token}
    assert free_places(leases, "user:1", 2) == 1
    assert free_places(leases, "topic:build", 2) == 1


def test_what_was_taken_over_is_not_back_for_as_long_as_redis_remembers(leases: RedisLeases) -> None:
    leases.acquire(several(1, client="page"))
    token = leases.acquire(several(1, client="page", process="there"))
    in_redis(leases, 1800)
    assert leases.renew("here") == frozenset()
    assert leases.renew("there") == {token}


def test_of_two_leases_of_one_page_that_redis_lost_one_is_back(leases: RedisLeases) -> None:
    leases.acquire(several(5, client="page"))
    leases.acquire(several(5, client="page", process="there"))
    leases.server.client.flushall()
    assert len(leases.renew("there")) == 1
    assert len(leases.renew("here")) == 0


def test_a_lease_that_is_given_back_while_redis_has_lost_it_stays_away(leases: RedisLeases) -> None:
    token = leases.acquire(several(1))
    leases.server.client.flushall()
    leases.release([token])
    assert leases.renew("here") == frozenset()
    assert free_places(leases, "user:1", 1) == 1


def test_a_flushed_script_cache_is_filled_again(leases: RedisLeases) -> None:
    token = leases.acquire(several(1))
    for _ in range(2):
        leases.server.client.script_flush()
        assert leases.renew("here") == {token}
    leases.server.client.script_flush()
    leases.release([token])
    assert free_places(leases, "user:1", 1) == 1


# -- nothing grows --------------------------------------------------------------------------------------------------


def test_every_key_expires(leases: RedisLeases) -> None:
    leases.acquire(several(1, client="page"))
    leases.acquire(several(1, client="page"))
    leases.renew("here")
    leases.acquire(request(("user:2", 1)))
    leases.revoke(holder="user:2")
    client = leases.server.client
    keys = list(client.scan_iter("*"))
    assert len(keys) >= 6
    for key in keys:
        assert 0 < client.pttl(key) <= (3600 + 60) * 1000, key


def test_what_is_given_back_leaves_nothing(leases: RedisLeases) -> None:
    tokens = [leases.acquire(several(0, client=str(number))) for number in range(5)]
    leases.release(tokens)
    assert list(leases.server.client.scan_iter("*")) == []
    assert leases._given == {}


def test_what_expired_leaves_nothing_in_a_set_that_is_used(leases: RedisLeases, settings: Any) -> None:
    for _ in range(150):
        leases.acquire(several(0, process="killed"))
    in_redis(leases, 61)
    for _ in range(2):
        leases.acquire(several(0))
    key = f"livefeed:{settings.LIVEFEED_PREFIX}:{{leases}}:holder:topic:build"
    assert leases.server.client.zcard(key) == 2
    assert leases.sweep() == 150


def test_what_a_process_holds_no_more_it_forgets(leases: RedisLeases) -> None:
    leases.acquire(several(0, client="page"))
    leases.acquire(several(0, client="page"))
    leases.acquire(request(("user:2", 0)))
    leases.revoke(holder="user:2")
    with chore("trim"):
        pass
    leases.renew("here")
    assert len(leases._given) == 1


def test_no_script_has_more_than_a_few_leases_to_care_for(leases: RedisLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {leases.acquire(several(0)) for _ in range(redis_leases.BATCH + 50)}
    most: list[int] = []
    call_all = Server.call_all

    def spies(self: Server, calls: Any) -> Any:
        most.extend(len([arg for arg in call.args if arg in tokens]) for call in calls)
        return call_all(self, calls)

    monkeypatch.setattr(Server, "call_all", spies)
    assert leases.renew("here") == tokens
    assert len(list(leases.connections())) == len(tokens)
    assert leases.revoke(topic="nothing") == 0
    leases.release(tokens)
    assert max(most) == redis_leases.BATCH
    assert sum(most) == 4 * len(tokens)


# -- several sites, several servers ---------------------------------------------------------------------------------


def test_two_sites_on_one_redis_are_not_counted_together(redis_url: str, settings: Any) -> None:
    mine = use(redis_url, settings, "mine")
    mine.acquire(several(1))
    theirs = use(redis_url, settings, "theirs")
    assert list(theirs.connections()) == []
    assert theirs.revoke(holder="user:1") == 0
    theirs.acquire(several(1))
    settings.LIVEFEED_PREFIX = "mine"
    assert len(list(mine.connections())) == 1
    with pytest.raises(LimitReached):
        mine.acquire(several(1))


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisClusterNode(tmp_path_factory.mktemp("cluster")) as node:
        yield node.url


def test_on_a_cluster_everything_lies_in_one_slot(cluster_url: str, settings: Any) -> None:
    leases = use(cluster_url, settings)
    tokens = {leases.acquire(request((f"user:{n}", 1), ("topic:build", 0), client="page")) for n in range(5)}
    again = leases.acquire(request(("user:1", 1), ("topic:other", 1), client="page", process="there"))
    assert len(leases.renew("here") & tokens) == 4
    assert len(list(leases.connections())) == 5
    assert leases.revoke(topic="build", holder="user:2") == 1
    leases.release([again])
    assert free_places(leases, "user:1", 1) == 1
    assert len(leases.renew("here")) == 3
    leases.server.client.flushall()
    assert len(leases.renew("here")) == 3
    assert leases.sweep() == 0
    client = leases.server.client
    assert len({client.keyslot(key) for key in client.scan_iter(f"livefeed:{settings.LIVEFEED_PREFIX}:*")}) == 1


def test_many_processes_never_pass_the_limit(redis_url: str, settings: Any) -> None:
    """Each with a keeper, and so with connections, of its own."""
    keepers = [use(redis_url, settings, "shared") for _ in range(10)]

    def connect(leases: RedisLeases) -> int:
        count = 0
        for _ in range(5):
            try:
                leases.acquire(several(7, process="crowd"))
            except LimitReached:
                continue
            count += 1
        return count

    assert sum(at_once([lambda leases=leases: connect(leases) for leases in keepers])) == 7  # type: ignore[misc]
    assert sum(len(leases.renew("crowd")) for leases in keepers) == 7


# -- away -----------------------------------------------------------------------------------------------------------


def test_a_redis_that_is_not_there_is_an_unavailable_keeper(settings: Any) -> None:
    for scheme in ("redis", "redis+cluster"):
        leases = use(f"{scheme}://127.0.0.1:{free_port()}", settings)
        leases._given["token"] = several(1)
        for call in (
            lambda leases=leases: leases.acquire(several(1)),
            lambda leases=leases: leases.renew("here"),
            lambda leases=leases: leases.revoke(holder="user:1"),
            lambda leases=leases: list(leases.connections()),
            lambda leases=leases: leases.sweep(),
            lambda leases=leases: leases.release(["token"]),
        ):
            with pytest.raises(HistoryUnavailable, match="Redis"):
                call()


def test_a_redis_that_was_away_finds_the_leases_as_they_were(private_redis: RedisServer, leases: RedisLeases) -> None:
    token = leases.acquire(several(1))
    private_redis.kill()
    for _ in range(2):
        with pytest.raises(HistoryUnavailable):
            leases.renew("here")
    private_redis.start()
    assert leases.renew("here") == {token}


@pytest.mark.parametrize("url", ["", "http://h", "redis://:secret/x@h"])
def test_a_url_that_is_none_is_refused_without_telling_it(url: str, settings: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="LIVEFEED_REDIS") as caught:
        use(url, settings).acquire(several(1))
    assert "secret" not in str(caught.value)


def about_redis() -> dict[str, Any]:
    ids = {"livefeed.E014", "livefeed.E017", "livefeed.E018"}
    return {message.id: message for message in check_settings() if message.id in ids}


def test_the_check_asks_for_the_url_where_only_the_leases_are_in_redis(settings: Any) -> None:
    settings.LIVEFEED_LEASES = REDIS
    (message,) = about_redis().values()
    assert (message.id, "the leases" in message.msg) == ("livefeed.E018", True)
    settings.LIVEFEED_REDIS = f"redis://127.0.0.1:{free_port()}/0"
    assert about_redis() == {}


def test_the_check_says_what_to_install_for_the_leases(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LIVEFEED_LEASES = REDIS
    monkeypatch.setitem(sys.modules, "redis", None)
    (message,) = about_redis().values()
    assert (message.id, "The leases" in message.msg, "pip install" in message.hint) == ("livefeed.E017", True, True)


# -- streams --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_renewals(settings: Any) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 0.3


async def test_a_stream_is_counted_in_redis_and_not_in_the_database(
    redis_url: str, settings: Any, roster: Roster
) -> None:
    leases = use(redis_url, settings)
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    async with open_stream(PLAIN) as stream:
        await stream.next()
        (found,) = leases.connections()
        assert found.topics == (PLAIN,)
        async with open_stream(PLAIN) as second:
            assert second.status == 429
    await eventually(lambda: not list(leases.connections()), "the lease is given back")


async def test_without_redis_a_stream_is_refused_as_unavailable_and_nothing_fails(
    private_redis: RedisServer, settings: Any, roster: Roster
) -> None:
    use(private_redis.url, settings)
    private_redis.kill()
    async with open_stream(PLAIN) as stream:
        assert stream.status == 503
    private_redis.start()
    async with open_stream(PLAIN) as stream:
        assert stream.status == 200


@pytest.mark.usefixtures("quick_renewals")
async def test_streams_stay_open_while_redis_is_started_anew(
    private_redis: RedisServer, settings: Any, roster: Roster, caplog: pytest.LogCaptureFixture
) -> None:
    leases = use(private_redis.url, settings)
    async with open_stream(PLAIN) as one, open_stream(PLAIN) as two:
        for stream in (one, two):
            await stream.next()
        private_redis.kill()
        await eventually(lambda: "Prolonging leases failed" in caplog.text, "a renewal failed")
        private_redis.start()
        await eventually(lambda: len(list(leases.connections())) == 2, "both leases are back")
        await eventually(lambda: "Prolonging leases works again" in caplog.text, "a renewal worked")
        assert len(roster) == 2
