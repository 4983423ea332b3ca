"""One contract that every keeper of leases passes; a keeper joins it by one more parameter."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.models import F

from livefeed.exceptions import LimitReached
from livefeed.leases import LeaseRequest, Leases, get_leases
from livefeed.leases.database import DatabaseLeases
from livefeed.models import Lease

from .writing import at_once, in_thread, interrupted, statements

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[DatabaseLeases])
def leases(request: pytest.FixtureRequest) -> Leases:
    made: Leases = request.param()
    return made


@pytest.fixture
def pass_time(leases: Leases) -> Callable[[float], None]:
    """Let seconds pass, for every lease there is."""

    def in_database(seconds: float) -> None:
        passed = datetime.timedelta(seconds=seconds)
        Lease.objects.update(expires_at=F("expires_at") - passed, opened_at=F("opened_at") - passed)

    return in_database


def request(holder: str = "user:1", client: str = "", process: str = "here", topics: str = "build") -> LeaseRequest:
    return LeaseRequest(holder=holder, client=client, process=process, topics=topics)


@contextmanager
def refused(limit: int) -> Iterator[None]:
    with pytest.raises(LimitReached) as caught:
        yield
    assert (caught.value.reason, caught.value.limit) == ("limit", limit)
    assert f"{limit} allowed" in str(caught.value)


def test_as_many_leases_as_the_limit_allows_are_given_and_not_one_more(leases: Leases) -> None:
    tokens = {leases.acquire(request(), 3) for _ in range(3)}
    assert len(tokens) == 3
    with refused(3):
        leases.acquire(request(), 3)
    assert leases.renew("here") == tokens


def test_a_limit_of_nought_is_no_limit(leases: Leases) -> None:
    assert len({leases.acquire(request(), 0) for _ in range(15)}) == 15


def test_each_holder_has_a_limit_of_its_own(leases: Leases) -> None:
    leases.acquire(request("user:1"), 1)
    leases.acquire(request("user:2"), 1)
    for holder in ("user:1", "user:2"):
        with refused(1):
            leases.acquire(request(holder), 1)


def test_a_holder_s_limit_is_counted_over_all_processes(leases: Leases) -> None:
    leases.acquire(request(process="here"), 2)
    leases.acquire(request(process="there"), 2)
    with refused(2):
        leases.acquire(request(process="elsewhere"), 2)


def test_a_lease_that_is_given_back_makes_room(leases: Leases) -> None:
    tokens = [leases.acquire(request(), 2) for _ in range(2)]
    leases.release([tokens[0]])
    again = leases.acquire(request(), 2)
    assert leases.renew("here") == {tokens[1], again}
    with refused(2):
        leases.acquire(request(), 2)


def test_giving_back_nothing_twice_or_what_never_was_harms_nobody(leases: Leases) -> None:
    token = leases.acquire(request(), 1)
    leases.release([])
    leases.release(["never was"])
    assert leases.renew("here") == {token}
    leases.release([token, token])
    leases.release([token])
    assert leases.renew("here") == frozenset()


def test_a_lease_that_nobody_renews_expires_and_makes_room(
    leases: Leases, pass_time: Callable[[float], None], settings: Any
) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 60.0
    dead = leases.acquire(request(process="killed"), 1)
    pass_time(59)
    with refused(1):
        leases.acquire(request(), 1)
    pass_time(2)
    token = leases.acquire(request(), 1)
    assert token != dead
    assert leases.renew("killed") == frozenset()
    assert leases.renew("here") == {token}
    with refused(1):
        leases.acquire(request(), 1)


def test_a_lease_that_is_renewed_does_not_expire(
    leases: Leases, pass_time: Callable[[float], None], settings: Any
) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 60.0
    token = leases.acquire(request(), 1)
    for _ in range(3):
        pass_time(50)
        assert leases.renew("here") == {token}
    with refused(1):
        leases.acquire(request(), 1)


def test_renewing_is_for_the_leases_of_one_process_only(
    leases: Leases, pass_time: Callable[[float], None], settings: Any
) -> None:
    settings.LIVEFEED_LEASE_SECONDS = 60.0
    here, there = leases.acquire(request(process="here"), 2), leases.acquire(request(process="there"), 2)
    pass_time(50)
    assert leases.renew("here") == {here}
    pass_time(50)
    leases.acquire(request(process="new"), 2)
    assert leases.renew("there") == frozenset(), f"the lease {there} was the one that expired"
    assert leases.renew("here") == {here}


def test_a_page_that_reconnects_takes_over_its_own_lease(leases: Leases) -> None:
    ghost = leases.acquire(request(client="page", process="here"), 1)
    token = leases.acquire(request(client="page", process="there"), 1)
    assert token != ghost
    assert leases.renew("here") == frozenset()
    assert leases.renew("there") == {token}
    with refused(1):
        leases.acquire(request(client="another page"), 1)


def test_giving_back_a_lease_that_was_taken_over_leaves_the_new_one(leases: Leases) -> None:
    ghost = leases.acquire(request(client="page"), 1)
    token = leases.acquire(request(client="page"), 1)
    leases.release([ghost])
    assert leases.renew("here") == {token}


def test_nobody_takes_over_the_lease_of_another_holder(leases: Leases) -> None:
    mine = leases.acquire(request("user:1", client="page"), 1)
    leases.acquire(request("user:2", client="page", process="there"), 1)
    assert leases.renew("here") == {mine}


def test_pages_without_an_id_never_take_over(leases: Leases) -> None:
    one, two = leases.acquire(request(client=""), 2), leases.acquire(request(client=""), 2)
    assert leases.renew("here") == {one, two}


def test_a_page_takes_over_although_the_limit_was_lowered_meanwhile(leases: Leases) -> None:
    for client in ("one", "two", "three"):
        leases.acquire(request(client=client), 3)
    leases.acquire(request(client="three", process="there"), 1)
    assert len(leases.renew("there")) == 1
    with refused(1):
        leases.acquire(request(client="four"), 1)


def test_a_lowered_limit_counts_only_what_is_held(leases: Leases, pass_time: Callable[[float], None]) -> None:
    tokens = [leases.acquire(request(), 5) for _ in range(5)]
    leases.release(tokens[:4])
    leases.acquire(request(), 2)
    with refused(2):
        leases.acquire(request(), 2)


def test_long_expired_leases_are_swept_and_others_stay(leases: Leases, pass_time: Callable[[float], None]) -> None:
    for _ in range(3):
        leases.acquire(request(process="killed"), 0)
    pass_time(2 * 3600)
    leases.acquire(request("user:2"), 0)
    assert leases.sweep() == 3
    assert leases.sweep() == 0
    assert len(leases.renew("here")) == 1


def acquire_at_once(leases: Leases, count: int, limit: int) -> int:
    """Return how many of so many connections that come in the same moment got a lease."""

    def connect() -> bool:
        try:
            leases.acquire(request(process="crowd"), limit)
        except LimitReached:
            return False
        return True

    return sum(at_once([connect] * count))


def test_of_many_connections_in_the_same_moment_exactly_the_limit_is_let_in(leases: Leases) -> None:
    assert acquire_at_once(leases, 12, 5) == 5
    assert len(leases.renew("crowd")) == 5


def test_of_many_connections_in_the_same_moment_exactly_the_limit_takes_over_from_the_dead(
    leases: Leases, pass_time: Callable[[float], None]
) -> None:
    for _ in range(5):
        leases.acquire(request(process="killed"), 5)
    pass_time(10_000)
    assert acquire_at_once(leases, 12, 5) == 5
    assert len(leases.renew("crowd")) == 5
    assert leases.renew("killed") == frozenset()


def test_without_a_limit_everyone_of_many_is_let_in(leases: Leases) -> None:
    assert acquire_at_once(leases, 12, 0) == 12
    assert len(leases.renew("crowd")) == 12


def test_when_one_page_connects_several_times_at_once_everyone_gets_a_lease(leases: Leases) -> None:
    first = leases.acquire(request(client="page"), 10)
    tokens = at_once([lambda: leases.acquire(request(client="page"), 10)] * 6)
    assert len({first, *tokens}) == 7
    assert len(leases.renew("here")) <= 6


# -- the database's leases ------------------------------------------------------------------------------------------


@pytest.fixture
def database() -> DatabaseLeases:
    return DatabaseLeases()


def test_who_is_beaten_to_an_expired_lease_takes_the_next_one(database: DatabaseLeases) -> None:
    for _ in range(2):
        database.acquire(request(process="killed"), 2)
    Lease.objects.update(expires_at=F("expires_at") - datetime.timedelta(hours=1))
    with interrupted('"expires_at" <', lambda: in_thread(lambda: database.acquire(request(process="rival"), 2))):
        database.acquire(request(process="here"), 2)
    assert len(database.renew("rival")) == 1
    assert len(database.renew("here")) == 1


def test_who_is_beaten_to_a_free_slot_takes_the_next_one(database: DatabaseLeases) -> None:
    with interrupted('SELECT "livefeed_lease"."slot"', lambda: in_thread(lambda: database.acquire(request(), 2))):
        database.acquire(request(), 2)
    assert len(database.renew("here")) == 2


def test_who_is_beaten_to_the_last_slot_is_refused(database: DatabaseLeases) -> None:
    with (
        interrupted('SELECT "livefeed_lease"."slot"', lambda: in_thread(lambda: database.acquire(request(), 1))),
        refused(1),
    ):
        database.acquire(request(), 1)


def test_a_lease_is_taken_by_few_statements(database: DatabaseLeases) -> None:
    database.acquire(request(client="page"), 10)
    with statements() as seen:
        database.acquire(request(client="another page"), 10)
    assert len(seen) <= 8


def test_times_are_those_of_the_database_and_not_of_this_machine(
    database: DatabaseLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC))
    database.acquire(request(), 1)
    with refused(1):
        database.acquire(request(), 1)


# -- which keeper ---------------------------------------------------------------------------------------------------


def test_by_default_leases_are_kept_in_the_database() -> None:
    assert isinstance(get_leases(), DatabaseLeases)


def test_a_setting_that_names_no_keeper_is_refused_with_its_value(settings: Any) -> None:
    settings.LIVEFEED_LEASES = "livefeed.models.Lease"
    with pytest.raises(ImproperlyConfigured, match=r"livefeed\.models\.Lease"):
        get_leases()
