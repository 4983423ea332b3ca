"""One contract that every keeper of leases passes; a keeper joins it by one more parameter."""

from __future__ import annotations

import datetime
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from livefeed.conf import settings
from livefeed.exceptions import LimitReached
from livefeed.leases import Claim, Connection, LeaseRequest, Leases, chore, get_leases
from livefeed.leases.database import BOUNDLESS, WINDOW, DatabaseLeases
from livefeed.models import Lease, LeaseClaim

from .writing import at_once, in_thread, interrupted, rolled_back, statements

pytestmark = pytest.mark.django_db(transaction=True)

#: Connections that come in the same moment.
CROWD = 50


SERIAL = itertools.count()


@pytest.fixture(params=["database", pytest.param("redis", marks=pytest.mark.needs("redis"))])
def leases(request: pytest.FixtureRequest, settings: Any) -> Leases:
    """Each keeper in turn, with nothing to keep yet."""
    if request.param == "redis":
        settings.LIVEFEED_REDIS = request.getfixturevalue("redis_url")
        settings.LIVEFEED_PREFIX = f"leases-{next(SERIAL)}"
        settings.LIVEFEED_LEASES = "livefeed.leases.redis.RedisLeases"
    return get_leases()


@pytest.fixture
def pass_time(leases: Leases) -> Callable[[float], None]:
    """Let seconds pass, for every lease there is."""
    return in_database if isinstance(leases, DatabaseLeases) else lambda seconds: in_redis(leases, seconds)


def in_redis(leases: Any, seconds: float) -> None:
    client, passed = leases.server.client, int(seconds * 1000)
    for key in list(client.scan_iter(f"livefeed:{settings.prefix}:*")):
        left = client.pttl(key)
        if client.type(key) == "zset":
            for member, score in client.zrange(key, 0, -1, withscores=True):
                client.zadd(key, {member: score - passed})
        elif client.type(key) == "hash":
            for name in ("opened", "expires"):
                client.hincrby(key, name, -passed)
        client.pexpire(key, left - passed)  # or it is gone


def in_database(seconds: float) -> None:
    passed = datetime.timedelta(seconds=seconds)
    Lease.objects.update(expires_at=F("expires_at") - passed, opened_at=F("opened_at") - passed)


def request(
    *claims: tuple[str, int], client: str = "", process: str = "here", session: str = "", topics: str = "build"
) -> LeaseRequest:
    """Return what a connection asks for; ``topics`` with spaces in between."""
    wanted = tuple(Claim(*claim) for claim in claims)
    return LeaseRequest(claims=wanted, client=client, process=process, session=session, topics=tuple(topics.split()))


def user(limit: int, **others: str) -> LeaseRequest:
    """Return what a connection asks for that counts against one limit."""
    return request(("user:1", limit), **others)


@contextmanager
def refused(limit: int, of: str = "user") -> Iterator[None]:
    with pytest.raises(LimitReached) as caught:
        yield
    assert (caught.value.reason, caught.value.limit, caught.value.of) == ("limit", limit, of)
    assert f"of the {of} ({limit} allowed)" in str(caught.value)


def admitted(leases: Leases, requests: list[LeaseRequest]) -> list[LeaseRequest]:
    """Return those of several connections, which come in the same moment, that got a lease."""

    def connect(request: LeaseRequest) -> LeaseRequest | None:
        try:
            leases.acquire(request)
        except LimitReached:
            return None
        return request

    found = at_once([lambda request=request: connect(request) for request in requests])  # type: ignore[misc]
    return [request for request in found if request is not None]


def free_places(leases: Leases, holder: str, limit: int) -> int:
    """Return how many more connections of a holder would be let in; they are given back."""
    tokens = []
    try:
        while True:
            tokens.append(leases.acquire(request((holder, limit), process="probe")))
    except LimitReached:
        return len(tokens)
    finally:
        leases.release(tokens)


# -- many at once -----------------------------------------------------------------------------------------------------


def outcomes(leases: Leases, requests: list[LeaseRequest]) -> list[str]:
    """Acquire together; return for each "lease", or of what the limit was reached."""
    answers = leases.acquire_all(requests)
    assert len(answers) == len(requests)
    tokens = [answer for answer in answers if isinstance(answer, str)]
    assert len(set(tokens)) == len(tokens)
    return ["lease" if isinstance(answer, str) else getattr(answer, "of", repr(answer)) for answer in answers]


def test_those_who_come_together_get_a_lease_each(leases: Leases) -> None:
    requests = [request((f"user:{n}", 2), ("topic:build", 0), session=f"s{n}", topics="build news") for n in range(20)]
    answers = leases.acquire_all(requests)
    assert leases.renew("here") == set(answers)
    live = {each.token: each for each in leases.connections()}
    for n, token in enumerate(answers):
        found = live[str(token)]
        assert (found.holder, found.session, found.topics) == (f"user:{n}", f"s{n}", ("build", "news"))
    assert leases.acquire_all([]) == []


def test_a_limit_holds_among_those_who_come_together(leases: Leases) -> None:
    assert outcomes(leases, [user(3)] * 5) == ["lease"] * 3 + ["user"] * 2
    leases.release(leases.renew("here"))
    requests = [request((f"user:{n}", 1), ("topic:build", 4)) for n in range(6)]
    assert outcomes(leases, requests) == ["lease"] * 4 + ["topic"] * 2
    assert free_places(leases, "user:5", 1) == 1, "who was refused holds nothing"


def test_nobody_is_refused_because_of_one_that_comes_along_and_is_refused(leases: Leases) -> None:
    leases.acquire(request(("user:1", 1)))
    requests = [request(("topic:build", 1), ("user:1", 1)), request(("topic:build", 1), ("user:2", 1))]
    assert outcomes(leases, requests)[1] == "lease"


def test_of_those_who_come_together_a_page_takes_its_own_lease_over(leases: Leases) -> None:
    ghost = leases.acquire(user(1, client="page"))
    assert outcomes(leases, [user(1, client="page"), user(1)]) == ["lease", "user"]
    assert ghost not in leases.renew("here")
    assert outcomes(leases, [user(1, client="page"), user(1, client="page")]) == ["lease", "lease"]
    assert len(leases.renew("here")) == 1, "the second took the first one's over"


def test_who_has_another_limit_on_the_same_holder_is_counted_all_the_same(leases: Leases) -> None:
    assert outcomes(leases, [user(0), user(0), user(2), user(3)]) == ["lease", "lease", "user", "lease"]


def test_an_expired_place_is_taken_by_one_of_those_who_come_together(
    leases: Leases, pass_time: Callable[[float], None]
) -> None:
    late = leases.acquire(user(1, process="killed"))
    pass_time(3600)
    assert outcomes(leases, [user(1), user(1)]) == ["lease", "user"]
    assert late not in leases.renew("killed")


def test_crowds_that_come_together_never_exceed_a_limit(leases: Leases) -> None:
    requests = [request((f"user:{n % 7}", 3), ("topic:build", 15)) for n in range(40)]
    crowds = [[random.choice(requests) for _ in range(10)] for _ in range(5)]
    answers = at_once([lambda crowd=crowd: leases.acquire_all(crowd) for crowd in crowds])  # type: ignore[misc]
    pairs = [pair for crowd, found in zip(crowds, answers, strict=True) for pair in zip(crowd, found, strict=True)]
    assert not [error for _, error in pairs if isinstance(error, Exception) and not isinstance(error, LimitReached)]
    held = Counter(request.claims[0].holder for request, answer in pairs if isinstance(answer, str))
    asked = Counter(request.claims[0].holder for request, _ in pairs)
    assert max(held.values()) <= 3
    assert sum(held.values()) <= 15
    assert sum(held.values()) == min(15, sum(min(3, count) for count in asked.values()))


# -- a limit --------------------------------------------------------------------------------------------------------


def test_as_many_leases_as_the_limit_allows_are_given_and_not_one_more(leases: Leases) -> None:
    tokens = {leases.acquire(user(3)) for _ in range(3)}
    assert len(tokens) == 3
    with refused(3):
        leases.acquire(user(3))
    assert leases.renew("here") == tokens


def test_a_limit_of_nought_is_no_limit(leases: Leases) -> None:
    assert len({leases.acquire(user(0)) for _ in range(15)}) == 15


def test_who_has_no_limit_counts_for_those_who_have_one(leases: Leases) -> None:
    for _ in range(3):
        leases.acquire(user(0))
    with refused(3):
        leases.acquire(user(3))
    leases.acquire(user(4))


def test_a_limit_larger_than_what_is_looked_at_at_once_holds_too(leases: Leases) -> None:
    limit = 2 * WINDOW
    for _ in range(limit):
        leases.acquire(user(limit))
    with refused(limit):
        leases.acquire(user(limit))


def test_each_holder_has_a_limit_of_its_own(leases: Leases) -> None:
    leases.acquire(request(("user:1", 1)))
    leases.acquire(request(("user:2", 1)))
    for holder in ("user:1", "user:2"):
        with refused(1):
            leases.acquire(request((holder, 1)))


def test_holders_are_told_apart_to_the_letter(leases: Leases) -> None:
    for holder in ("user:ann", "user:Ann", "user:ann b", "user:an", "user:ann:", "user:ann*", "user:ann\nb"):
        leases.acquire(request((holder, 1)))


def test_a_holder_s_limit_is_counted_over_all_processes(leases: Leases) -> None:
    leases.acquire(user(2, process="here"))
    leases.acquire(user(2, process="there"))
    with refused(2):
        leases.acquire(user(2, process="elsewhere"))


def test_a_lease_that_is_given_back_makes_room(leases: Leases) -> None:
    tokens = [leases.acquire(user(2)) for _ in range(2)]
    leases.release(tokens[:1])
    again = leases.acquire(user(2))
    assert leases.renew("here") == {tokens[1], again}
    with refused(2):
        leases.acquire(user(2))


def test_giving_back_nothing_twice_or_what_never_was_harms_nobody(leases: Leases) -> None:
    token = leases.acquire(user(1))
    leases.release([])
    leases.release(["never"])
    assert leases.renew("here") == {token}
    leases.release([token])
    leases.release([token, "never"])
    assert leases.renew("here") == frozenset()


def test_many_leases_are_prolonged_and_given_back(leases: Leases) -> None:
    tokens = {leases.acquire(user(0)) for _ in range(1200)}
    assert leases.renew("here") == tokens
    leases.release(tokens)
    assert leases.renew("here") == frozenset()
    assert not list(leases.connections())


# -- time -----------------------------------------------------------------------------------------------------------


def test_a_lease_that_nobody_renews_expires_and_makes_room(
    leases: Leases, pass_time: Callable[[float], None], settings: Any
) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 60.0
    dead = leases.acquire(user(1, process="killed"))
    pass_time(59)
    with refused(1):
        leases.acquire(user(1))
    pass_time(2)
    token = leases.acquire(user(1))
    assert token != dead
    assert leases.renew("killed") == frozenset()
    assert leases.renew("here") == {token}
    with refused(1):
        leases.acquire(user(1))


def test_a_lease_that_is_renewed_does_not_expire(
    leases: Leases, pass_time: Callable[[float], None], settings: Any
) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 60.0
    token = leases.acquire(user(1))
    for _ in range(4):
        pass_time(50)
        assert leases.renew("here") == {token}
    with refused(1):
        leases.acquire(user(1))


def test_a_lease_that_expired_is_there_again_if_its_places_are(
    leases: Leases, pass_time: Callable[[float], None]
) -> None:
    """The process could not reach the keeper for a while: its streams are open, and need not be closed."""
    tokens = {leases.acquire(request(("user:1", 2), ("topic:build", 3))) for _ in range(2)}
    pass_time(10_000)
    assert leases.renew("here") == tokens
    with refused(2):
        leases.acquire(user(2))
    assert free_places(leases, "topic:build", 3) == 1


def test_renewing_is_for_the_leases_of_one_process_only(
    leases: Leases, pass_time: Callable[[float], None], settings: Any
) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 60.0
    here, there = leases.acquire(user(2, process="here")), leases.acquire(user(2, process="there"))
    pass_time(40)
    assert leases.renew("here") == {here}
    pass_time(40)
    leases.acquire(user(2, process="new"))
    assert leases.renew("there") == frozenset(), f"the lease {there} was the one that expired"
    assert leases.renew("here") == {here}


def test_long_expired_leases_are_swept_and_others_stay(
    leases: Leases, pass_time: Callable[[float], None], settings: Any
) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 3600.0
    for _ in range(3):
        leases.acquire(request(("user:1", 0), ("topic:build", 0), process="killed"))
    token = leases.acquire(request(("user:2", 0), ("topic:build", 0)))
    for _ in range(3):
        pass_time(3000)
        assert leases.renew("here") == {token}
    assert leases.sweep() == 3
    assert leases.sweep() == 0
    assert leases.renew("here") == {token}
    assert free_places(leases, "topic:build", 5) == 4


def test_times_are_those_of_the_keeper_and_not_of_this_machine(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC))
    leases.acquire(user(1))
    with refused(1):
        leases.acquire(user(1))


# -- several claims -------------------------------------------------------------------------------------------------


def test_a_connection_counts_against_every_limit(leases: Leases) -> None:
    leases.acquire(request(("user:1", 5), ("address:a", 5), ("topic:build", 2)))
    leases.acquire(request(("user:2", 5), ("address:a", 5), ("topic:build", 2)))
    with refused(2, "topic"):
        leases.acquire(request(("user:3", 5), ("address:b", 5), ("topic:build", 2)))
    with refused(2, "address"):
        leases.acquire(request(("user:3", 5), ("address:a", 2), ("topic:other", 2)))
    with refused(1):
        leases.acquire(request(("user:1", 1), ("address:b", 5), ("topic:other", 2)))


def test_of_several_limits_that_are_reached_the_first_of_the_request_is_told(leases: Leases) -> None:
    for _ in range(2):
        leases.acquire(request(("user:1", 2), ("address:a", 2)))
    with refused(2, "address"):
        leases.acquire(request(("address:a", 2), ("user:1", 1)))
    with refused(1, "user"):
        leases.acquire(request(("user:1", 1), ("address:a", 2)))


@pytest.mark.parametrize("full", ["user:1", "address:a", "topic:build"])
def test_a_refused_connection_leaves_no_claim_behind(leases: Leases, full: str) -> None:
    holders = ["user:1", "address:a", "topic:build"]
    leases.acquire(request((full, 1), process="first"))
    for _ in range(3):
        with refused(1, full.partition(":")[0]):
            leases.acquire(request(*((holder, 1) for holder in holders)))
    assert [free_places(leases, holder, 1) for holder in holders] == [int(holder != full) for holder in holders]
    assert leases.renew("here") == frozenset()
    assert len(list(leases.connections())) == 1


def test_with_a_lease_all_its_claims_are_given_back(leases: Leases) -> None:
    holders = ["user:1", "address:a", "topic:build"]
    token = leases.acquire(request(*((holder, 1) for holder in holders)))
    leases.release([token])
    assert [free_places(leases, holder, 1) for holder in holders] == [1, 1, 1]


def test_a_lease_that_lost_one_place_after_it_expired_is_held_no_more(
    leases: Leases, pass_time: Callable[[float], None]
) -> None:
    leases.acquire(request(("user:1", 5), ("topic:build", 1), process="killed"))
    pass_time(10_000)
    token = leases.acquire(request(("user:2", 5), ("topic:build", 1)))
    assert leases.renew("killed") == frozenset()
    assert leases.renew("here") == {token}
    assert free_places(leases, "user:1", 5) == 5


# -- taking over ----------------------------------------------------------------------------------------------------


def test_a_page_that_reconnects_takes_over_its_own_lease(leases: Leases) -> None:
    leases.acquire(user(1, client="page", process="here"))
    token = leases.acquire(user(1, client="page", process="there"))
    assert leases.renew("here") == frozenset()
    assert leases.renew("there") == {token}
    with refused(1):
        leases.acquire(user(1, client="another page"))


def test_giving_back_a_lease_that_was_taken_over_leaves_the_new_one(leases: Leases) -> None:
    ghost = leases.acquire(user(1, client="page"))
    token = leases.acquire(user(1, client="page"))
    leases.release([ghost])
    assert leases.renew("here") == {token}
    with refused(1):
        leases.acquire(user(1))


def test_nobody_takes_over_the_lease_of_another_holder(leases: Leases) -> None:
    mine = leases.acquire(request(("user:1", 1), ("topic:build", 5), client="page"))
    leases.acquire(request(("user:2", 1), ("topic:build", 5), client="page", process="there"))
    assert leases.renew("here") == {mine}
    leases.acquire(request(("topic:build", 5), ("user:3", 1), client="page", process="there"))
    assert leases.renew("here") == {mine}, "only the first claim says whose connection it is"


def test_pages_without_an_id_never_take_over(leases: Leases) -> None:
    one, two = leases.acquire(user(2, client="")), leases.acquire(user(2, client=""))
    assert leases.renew("here") == {one, two}


def test_a_page_takes_over_although_the_limit_was_lowered_meanwhile(leases: Leases) -> None:
    for client in ("one", "two", "three"):
        leases.acquire(user(3, client=client))
    leases.acquire(user(1, client="three", process="there"))
    assert len(leases.renew("there")) == 1
    with refused(1):
        leases.acquire(user(1, client="four"))


def test_a_page_takes_over_every_claim_that_it_has_already(leases: Leases) -> None:
    claims = (("user:1", 1), ("address:a", 1), ("topic:build", 1))
    leases.acquire(request(*claims, client="page"))
    token = leases.acquire(request(*claims, client="page", process="there"))
    assert leases.renew("there") == {token}
    assert leases.renew("here") == frozenset()
    assert [free_places(leases, holder, 2) for holder, _ in claims] == [1, 1, 1]


def test_a_page_on_another_network_gives_the_old_place_back_and_takes_a_new_one(leases: Leases) -> None:
    leases.acquire(request(("user:1", 1), ("address:a", 1), ("topic:build", 1), client="page"))
    token = leases.acquire(request(("user:1", 1), ("address:b", 1), ("topic:build", 1), client="page", process="there"))
    assert leases.renew("there") == {token}
    assert free_places(leases, "address:a", 1) == 1
    assert free_places(leases, "address:b", 1) == 0
    assert free_places(leases, "user:1", 1) == 0
    leases.release([token])
    assert free_places(leases, "address:b", 1) == 1


def test_a_page_that_finds_no_place_for_what_is_new_leaves_the_old_connection_as_it_is(leases: Leases) -> None:
    ghost = leases.acquire(request(("user:1", 1), ("topic:build", 1), client="page"))
    leases.acquire(request(("user:2", 1), ("topic:other", 1), process="there"))
    with refused(1, "topic"):
        leases.acquire(request(("user:1", 1), ("topic:news", 1), ("topic:other", 1), client="page"))
    assert leases.renew("here") == {ghost}
    assert free_places(leases, "topic:build", 1) == 0
    assert free_places(leases, "topic:news", 1) == 1


def test_a_page_whose_lease_expired_takes_it_over_like_any_other(
    leases: Leases, pass_time: Callable[[float], None]
) -> None:
    leases.acquire(request(("user:1", 1), ("topic:build", 1), client="page", process="killed"))
    pass_time(10_000)
    token = leases.acquire(request(("user:1", 1), ("topic:build", 1), client="page"))
    assert leases.renew("killed") == frozenset()
    assert leases.renew("here") == {token}
    assert [free_places(leases, holder, 2) for holder in ("user:1", "topic:build")] == [1, 1]


# -- lowered limits -------------------------------------------------------------------------------------------------


def test_a_lowered_limit_counts_only_what_is_held(leases: Leases) -> None:
    tokens = [leases.acquire(user(5)) for _ in range(5)]
    leases.release(tokens[:4])
    leases.acquire(user(2))
    with refused(2):
        leases.acquire(user(2))


def test_who_came_before_the_limit_was_lowered_stays_and_counts(leases: Leases) -> None:
    tokens = {leases.acquire(user(500)) for _ in range(10)}
    for limit in (10, 2):
        with refused(limit):
            leases.acquire(user(limit))
    assert leases.renew("here") == tokens


def test_who_is_beyond_a_lowered_limit_counts_however_large_that_is(leases: Leases) -> None:
    limit = WINDOW + 6
    for _ in range(limit):
        leases.acquire(user(0))
    with refused(limit):
        leases.acquire(user(limit))
    leases.acquire(user(limit + 1))
    with refused(limit + 1):
        leases.acquire(user(limit + 1))


def test_a_limit_that_was_lowered_below_what_is_held_holds_for_many_at_once(leases: Leases) -> None:
    tokens = [leases.acquire(user(200)) for _ in range(20)]
    leases.release(tokens[:17])
    assert len(admitted(leases, [user(5, process="crowd")] * 12)) == 2
    assert len(leases.renew("crowd")) == 2


# -- many in the same moment ----------------------------------------------------------------------------------------


def test_of_many_connections_in_the_same_moment_exactly_the_limit_is_let_in(leases: Leases) -> None:
    assert len(admitted(leases, [user(5, process="crowd")] * CROWD)) == 5
    assert len(leases.renew("crowd")) == 5
    with refused(5):
        leases.acquire(user(5))


def test_of_many_connections_with_several_claims_exactly_the_limit_that_binds_is_let_in(leases: Leases) -> None:
    """Each shares its address with some and its topic with all, in whatever order it names them."""
    requests = [
        request(*order, process="crowd")
        for number, order in zip(
            range(CROWD),
            itertools.cycle(itertools.permutations([("user:1", CROWD), ("address:a", 40), ("topic:build", 5)])),
            strict=False,
        )
    ]
    assert len(admitted(leases, requests)) == 5
    assert len(leases.renew("crowd")) == 5
    assert free_places(leases, "user:1", CROWD) == CROWD - 5
    assert free_places(leases, "address:a", 40) == 35


def test_nobody_is_refused_because_of_somebody_who_is_refused_too(leases: Leases) -> None:
    """Of one user's many attempts all but one fail, and none of them takes a place on the topic meanwhile."""
    greedy = [request(("user:0", 1), ("topic:build", 10), process="crowd")] * 30
    others = [request((f"user:{number}", 1), ("topic:build", 10), process="crowd") for number in range(1, 10)]
    found = Counter(request.claims[0].holder for request in admitted(leases, greedy + others))
    assert found == {f"user:{number}": 1 for number in range(10)}
    assert free_places(leases, "topic:build", 11) == 1


def test_no_limit_of_several_that_bind_is_ever_passed(leases: Leases) -> None:
    limits = {"user": 4, "address": 7, "topic": 9}
    requests = [
        request(
            (f"user:{number % 5}", limits["user"]),
            (f"address:{number % 3}", limits["address"]),
            (f"topic:{number % 2}", limits["topic"]),
            process="crowd",
        )
        for number in range(CROWD)
    ]
    got_in = admitted(leases, requests)
    taken = Counter(claim.holder for request in got_in for claim in request.claims)
    assert all(count <= limits[holder.partition(":")[0]] for holder, count in taken.items())
    assert len(leases.renew("crowd")) == len(got_in)
    for holder, limit in {claim for request in requests for claim in request.claims}:
        assert free_places(leases, holder, limit) == limit - taken[holder]
    full = {holder for holder, count in taken.items() if count == limits[holder.partition(":")[0]]}
    for refused_one in set(requests) - set(got_in):
        assert full & {claim.holder for claim in refused_one.claims}


def test_of_many_connections_in_the_same_moment_exactly_the_limit_takes_over_from_the_dead(
    leases: Leases, pass_time: Callable[[float], None]
) -> None:
    claims = (("user:1", 10), ("topic:build", 5))
    for _ in range(5):
        leases.acquire(request(*claims, process="killed"))
    pass_time(10_000)
    assert len(admitted(leases, [request(*claims, process="crowd")] * CROWD)) == 5
    assert len(leases.renew("crowd")) == 5
    assert leases.renew("killed") == frozenset()
    assert free_places(leases, "user:1", 10) == 5


def test_without_a_limit_everyone_of_many_is_let_in(leases: Leases) -> None:
    assert len(admitted(leases, [user(0, process="crowd")] * 12)) == 12
    assert len(leases.renew("crowd")) == 12


def test_with_room_for_all_everyone_of_many_is_let_in(leases: Leases) -> None:
    crowd = [request(("user:1", CROWD), ("address:a", 10 * CROWD), process="crowd")] * CROWD
    assert len(admitted(leases, crowd)) == CROWD
    assert len(leases.renew("crowd")) == CROWD


def test_who_gives_back_and_who_takes_in_the_same_moment_never_pass_the_limit(leases: Leases) -> None:
    def come_and_go() -> int:
        entered = 0
        for _ in range(10):
            try:
                token = leases.acquire(request(("user:1", 3), ("topic:build", 5), process="crowd"))
            except LimitReached:
                continue
            entered += 1
            assert len(leases.renew("crowd")) <= 3
            leases.release([token])
        return entered

    assert sum(at_once([come_and_go] * 8)) > 0
    assert leases.renew("crowd") == frozenset()
    assert free_places(leases, "user:1", 3) == 3
    assert free_places(leases, "topic:build", 5) == 5


def test_when_one_page_connects_several_times_at_once_everyone_gets_a_lease(leases: Leases) -> None:
    first = leases.acquire(request(("user:1", 1), ("topic:build", 1), client="page"))
    again = request(("user:1", 1), ("topic:build", 1), client="page")
    tokens = at_once([lambda: leases.acquire(again)] * 6)
    assert len({first, *tokens}) == 7
    (held,) = leases.renew("here")
    assert held in tokens


# -- who is there ---------------------------------------------------------------------------------------------------


@pytest.fixture
def some(leases: Leases) -> dict[str, str]:
    """Connections of three, by name: their tokens."""
    return {
        "ann": leases.acquire(request(("user:1", 0), ("address:a", 0), session="s1", topics="build news:7")),
        "ann again": leases.acquire(request(("user:1", 0), ("address:b", 0), session="s2", topics="build:7 new")),
        "bob": leases.acquire(request(("user:2", 0), ("address:a", 0), session="s3", topics="Build", process="there")),
    }


def test_what_is_live_is_told(leases: Leases, some: dict[str, str]) -> None:
    with chore("trim"):
        found = {connection.token: connection for connection in leases.connections()}
    assert set(found) == set(some.values())
    ann = found[some["ann"]]
    assert ann == Connection("user:1", "s1", ("build", "news:7"), "here", ann.opened_at, ann.expires_at, some["ann"])
    passed = timezone.now() - ann.opened_at
    assert abs(passed) < datetime.timedelta(seconds=30)
    left = (ann.expires_at - ann.opened_at).total_seconds()
    assert left == pytest.approx(60.0, abs=1.0)


def test_what_expired_is_not_told(leases: Leases, some: dict[str, str], pass_time: Callable[[float], None]) -> None:
    pass_time(50)
    leases.renew("there")
    pass_time(50)
    assert [connection.token for connection in leases.connections()] == [some["bob"]]


MATCHING: list[tuple[dict[str, str], set[str]]] = [
    ({"holder": "user:1"}, {"ann", "ann again"}),
    ({"holder": "address:a"}, {"ann", "bob"}),
    ({"holder": "user"}, set()),
    ({"session": "s2"}, {"ann again"}),
    ({"topic": "build"}, {"ann"}),
    ({"topic": "Build"}, {"bob"}),
    ({"topic": "news:7"}, {"ann"}),
    ({"topic": "new"}, {"ann again"}),
    ({"topic": "b_ild"}, set()),
    ({"holder": "user:1", "topic": "build"}, {"ann"}),
    ({"holder": "user:1", "session": "s3"}, set()),
    ({"holder": "address:a", "session": "s3", "topic": "Build"}, {"bob"}),
]


@pytest.mark.parametrize(("given", "names"), MATCHING, ids=[str(given) for given, _ in MATCHING])
def test_what_matches_every_argument_is_told_and_taken_away(
    leases: Leases, some: dict[str, str], given: dict[str, str], names: set[str]
) -> None:
    tokens = {some[name] for name in names}
    assert {connection.token for connection in leases.connections(**given)} == tokens
    assert leases.revoke(**given) == len(tokens)
    assert leases.renew("here") | leases.renew("there") == set(some.values()) - tokens
    assert {connection.token for connection in leases.connections()} == set(some.values()) - tokens
    assert leases.revoke(**given) == 0


def test_leases_can_be_taken_away_by_their_tokens(leases: Leases, some: dict[str, str]) -> None:
    assert leases.revoke(tokens=[some["ann"], some["bob"], "never"]) == 2
    assert leases.renew("here") == {some["ann again"]}
    assert leases.revoke(tokens=[some["ann again"]], holder="user:2") == 0
    assert leases.revoke(tokens=[some["ann again"]], holder="user:1") == 1


def test_what_is_taken_away_makes_room_and_is_not_back_at_a_renewal(leases: Leases) -> None:
    leases.acquire(request(("user:1", 1), ("topic:build", 1), client="page"))
    assert leases.revoke(holder="user:1") == 1
    assert leases.renew("here") == frozenset()
    assert leases.renew("here") == frozenset()
    token = leases.acquire(request(("user:1", 1), ("topic:build", 1), client="page"))
    assert leases.renew("here") == {token}


def test_many_are_taken_away(leases: Leases) -> None:
    for number in range(1100):
        leases.acquire(request((f"user:{number}", 5), ("topic:build", 0)))
    kept = leases.acquire(request(("user:1", 5), topics="other"))
    assert leases.revoke(topic="build") == 1100
    assert leases.renew("here") == {kept}


def test_nobody_ends_every_connection_by_mistake(leases: Leases, some: dict[str, str]) -> None:
    for nothing in ({}, {"holder": ""}, {"tokens": []}, {"session": "", "topic": ""}):
        with pytest.raises(ValueError, match="every connection"):
            leases.revoke(**nothing)  # type: ignore[arg-type]
    assert len(list(leases.connections())) == 3


# -- the database's leases ------------------------------------------------------------------------------------------

LOOK = "AS lives" if connection.vendor == "postgresql" else 'AS "exists1" FROM "livefeed_claim"'


@pytest.fixture
def database() -> DatabaseLeases:
    return DatabaseLeases()


def rival(database: DatabaseLeases, request: LeaseRequest) -> Callable[[], str]:
    return lambda: in_thread(lambda: database.acquire(request._replace(process="rival")))


def test_who_is_beaten_to_an_expired_lease_takes_the_next_one(database: DatabaseLeases) -> None:
    for _ in range(2):
        database.acquire(user(2, process="killed"))
    in_database(3600)
    with interrupted(LOOK, rival(database, user(2))):
        database.acquire(user(2))
    assert len(database.renew("rival")) == 1
    assert len(database.renew("here")) == 1


def test_who_is_beaten_to_an_expired_lease_by_its_process_keeps_off(database: DatabaseLeases) -> None:
    back = database.acquire(request(("user:1", 5), ("topic:build", 1), process="back"))
    in_database(3600)
    with (
        interrupted(LOOK, lambda: in_thread(lambda: database.renew("back"))),
        refused(1, "topic"),
    ):
        database.acquire(request(("user:2", 5), ("topic:build", 1)))
    assert database.renew("back") == {back}
    assert database.renew("here") == frozenset()
    assert LeaseClaim.objects.count() == 2


def test_who_is_beaten_to_a_free_slot_takes_the_next_one(database: DatabaseLeases) -> None:
    several = request(("user:1", 2), ("topic:build", 2))
    with interrupted(LOOK, rival(database, several)):
        database.acquire(several)
    assert len(database.renew("here")) == len(database.renew("rival")) == 1
    assert LeaseClaim.objects.count() == 4


@pytest.mark.parametrize("last", ["user:1", "address:a", "topic:build"])
def test_who_is_beaten_to_the_last_slot_is_refused_and_leaves_nothing(database: DatabaseLeases, last: str) -> None:
    claims = [(holder, 1 if holder == last else 9) for holder in ("user:1", "address:a", "topic:build")]
    with (
        interrupted(LOOK, rival(database, request((last, 1)))),
        refused(1, last.partition(":")[0]),
    ):
        database.acquire(request(*claims))
    assert Lease.objects.count() == LeaseClaim.objects.count() == 1


def test_who_is_beaten_by_another_connection_of_its_own_page_takes_that_one_over(database: DatabaseLeases) -> None:
    page = user(1, client="page")
    with interrupted('INNER JOIN "livefeed_lease"', rival(database, page)):
        token = database.acquire(page)
    assert database.renew("rival") == frozenset()
    assert database.renew("here") == {token}


def test_who_is_beaten_to_its_own_ghost_takes_over_the_one_that_beat_it(database: DatabaseLeases) -> None:
    page = request(("user:1", 1), ("topic:build", 1), client="page")
    database.acquire(page)
    with interrupted('INNER JOIN "livefeed_lease"', rival(database, page)):
        token = database.acquire(page)
    assert database.renew("rival") == frozenset()
    assert database.renew("here") == {token}
    assert LeaseClaim.objects.count() == 2


def test_who_gives_back_a_lease_while_it_is_taken_over_leaves_the_new_one_whole(database: DatabaseLeases) -> None:
    page = request(("user:1", 1), ("topic:build", 1), client="page")
    ghost = database.acquire(page)
    with interrupted('FROM "livefeed_lease" WHERE', rival(database, page)):
        database.release([ghost])
    assert len(database.renew("rival")) == 1
    assert LeaseClaim.objects.count() == 2


def test_a_lease_is_taken_by_few_statements_however_many_claims_it_has(database: DatabaseLeases) -> None:
    for others in ((), (("session:s", 10), ("address:a", 100), ("topic:build", 1000), ("topic:news", 0))):
        request_of = lambda client: request(("user:1", 10), *others, client=client)  # noqa: B023, E731
        database.acquire(request_of("page"))
        with statements() as seen:
            database.acquire(request_of("another page"))
        assert len(seen) <= 5, seen
        with statements() as seen:
            database.acquire(request_of("page"))
        assert len(seen) <= 3, seen
        with statements() as seen:
            database.renew("here")
        assert len(seen) <= 3, seen
        database.revoke(holder="user:1")


def test_leases_of_those_who_come_together_are_taken_by_as_many_statements_as_one(database: DatabaseLeases) -> None:
    counts = []
    for people in (range(1), range(1, 9)):
        claims = [(("session:s", 10), ("topic:build", 1000), (f"user:{n}", 10)) for n in people]
        crowd = [request(*reversed(each), client=f"page{n}") for n, each in enumerate(claims)]
        with statements() as seen:
            assert set(outcomes(database, crowd)) == {"lease"}
        counts.append(len([each for each in seen if "SAVEPOINT" not in each]))
    pages_and_slots = 2
    writing = 1 if connection.vendor == "postgresql" else 4
    assert counts[1] <= counts[0] <= pages_and_slots + writing, counts


def test_a_slot_that_was_taken_between_look_and_write_is_looked_for_again(database: DatabaseLeases) -> None:
    rivals = lambda: in_thread(lambda: database.acquire(user(2, process="rival")))  # noqa: E731
    with interrupted('FROM "livefeed_claim"', rivals):
        assert outcomes(database, [user(2), user(2)]) == ["lease", "user"]


def test_a_lease_that_expired_is_taken_by_few_statements(database: DatabaseLeases) -> None:
    claims = (("user:1", 1), ("topic:build", 1))
    database.acquire(request(*claims, process="killed"))
    in_database(3600)
    with statements() as seen:
        database.acquire(request(*claims, client="page"))
    assert len(seen) <= 7, seen


def test_in_somebody_s_transaction_a_slot_that_is_taken_spoils_nothing(database: DatabaseLeases) -> None:
    with transaction.atomic():
        database.acquire(user(1))
        with rolled_back():
            database.acquire(request(("user:2", 1)))
        with refused(1):
            database.acquire(user(1))
        database.acquire(request(("user:2", 1)))
    assert len(database.renew("here")) == 2


def test_a_lease_of_a_transaction_that_is_rolled_back_never_was(database: DatabaseLeases) -> None:
    with rolled_back():
        database.acquire(user(1))
    assert free_places(database, "user:1", 1) == 1


def test_a_claim_whose_lease_was_removed_by_hand_is_free(database: DatabaseLeases) -> None:
    database.acquire(user(1))
    Lease.objects.all().delete()
    token = database.acquire(user(1))
    assert database.renew("here") == {token}
    assert LeaseClaim.objects.count() == 1
    Lease.objects.all().delete()
    assert database.sweep() == 0
    assert not LeaseClaim.objects.exists()


def test_who_is_among_many_on_one_topic_does_not_look_at_all_of_them(database: DatabaseLeases) -> None:
    fill("topic:build", 3000, 5000)
    for _ in range(20):
        with looked_at() as rows:
            database.acquire(request(("user:1", 0), ("topic:build", 5000)))
        assert len(rows) <= WINDOW
    with looked_at() as rows, refused(3000, "topic"):
        database.acquire(request(("user:1", 0), ("topic:build", 3000)))
    assert len(rows) >= 3000


def fill(holder: str, count: int, limit: int) -> None:
    """Connect many, in slots here and there."""
    expires = timezone.now() + datetime.timedelta(hours=1)
    Lease.objects.bulk_create(
        Lease(holder=f"user:x{number}", token=f"t{number}", process="full", expires_at=expires)
        for number in range(count)
    )
    keys = Lease.objects.filter(process="full").values_list("pk", flat=True)
    slots = random.sample(range(limit), count)
    LeaseClaim.objects.bulk_create(
        LeaseClaim(lease_id=key, holder=holder, slot=slot) for slot, key in zip(slots, keys, strict=True)
    )


@contextmanager
def looked_at() -> Iterator[list[Any]]:
    """Collect the slots that are looked at."""
    rows: list[Any] = []
    look = DatabaseLeases._look

    def spy(self: DatabaseLeases, ranges: Any) -> Any:
        found = look(self, ranges)
        rows.extend(slot for slots in found.values() for slot in [*slots.alive, *slots.expired])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseLeases, "_look", spy)
        yield rows


def test_without_a_limit_slots_are_far_apart(database: DatabaseLeases) -> None:
    for _ in range(20):
        database.acquire(user(0))
    slots = sorted(LeaseClaim.objects.values_list("slot", flat=True))
    assert slots[-1] > 10_000
    assert slots[-1] < BOUNDLESS


OLD_LEASE = """
INSERT INTO livefeed_lease (holder, slot, token, client, process, topics, opened_at, expires_at)
VALUES ('user:1', 0, 't', '', 'here', 'build', %s, %s)
"""


def test_who_was_connected_before_the_migration_counts_after_it(database: DatabaseLeases) -> None:
    call_command("migrate", "livefeed", "0001", verbosity=0)
    try:
        now = timezone.now()
        with connection.cursor() as cursor:
            cursor.execute(OLD_LEASE, [now, now + datetime.timedelta(minutes=1)])
    finally:
        call_command("migrate", "livefeed", verbosity=0)
    with refused(1):
        database.acquire(user(1))
    assert database.renew("here") == {"t"}


def test_the_way_back_of_the_migration_works_while_somebody_is_connected(database: DatabaseLeases) -> None:
    database.acquire(request(("user:1", 1), ("topic:build", 1)))
    call_command("migrate", "livefeed", "0001", verbosity=0)
    call_command("migrate", "livefeed", verbosity=0)
    assert free_places(database, "user:1", 1) == 1


# -- which keeper ---------------------------------------------------------------------------------------------------


def test_by_default_leases_are_kept_in_the_database() -> None:
    assert isinstance(get_leases(), DatabaseLeases)


def test_a_setting_that_names_no_keeper_is_refused_with_its_value(settings: Any) -> None:
    settings.LIVEFEED_LEASES = "livefeed.models.Lease"
    with pytest.raises(ImproperlyConfigured, match=r"livefeed\.models\.Lease"):
        get_leases()
