"""How often somebody may come: buckets that requests and replays take from, and that fill up again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from django.test import AsyncClient

from livefeed import apublish, rates
from livefeed.exceptions import AuthenticationFailed, LimitReached
from livefeed.history import acursor
from livefeed.rates import Buckets
from livefeed.roster import Roster
from livefeed.testing import open_stream
from livefeed.viewers import Viewer
from tests.reading import append, numbers
from tests.writing import at_once

pytest_plugins = ["tests.reading_fixtures"]

SOMEBODY = Viewer(AnonymousUser(), None, "192.0.2.1")


class Clock:
    """A clock that stands still until it is told to go on, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Clock:
    clock = Clock()
    monkeypatch.setattr("livefeed.rates._buckets", Buckets(clock))
    settings.LIVEFEED_CONNECTS_PER_MINUTE = 6
    return clock


def wrong(request: HttpRequest) -> None:
    raise AuthenticationFailed("No.")


def times(viewer: Viewer) -> int:
    """Return how often somebody may come now."""
    count = 0
    with suppress(LimitReached):
        while count < 1000:
            rates.take(viewer)
            count += 1
    return count


def test_a_user_may_come_as_often_as_the_setting_says_and_again_as_time_goes_by(clock: Clock) -> None:
    user = Viewer(User(pk=7), "s", "192.0.2.1", by_session=True)
    assert times(user) == 6
    clock.now += 9
    assert times(user) == 0
    clock.now += 1
    assert times(user) == 1
    clock.now += 3600
    assert times(user) == 6


def test_who_comes_too_often_is_told_how_often_is_allowed(clock: Clock) -> None:
    times(SOMEBODY)
    with pytest.raises(LimitReached, match="rate") as caught:
        rates.take(SOMEBODY)
    assert (caught.value.reason, caught.value.limit) == ("rate", 60)


def test_a_user_has_one_bucket_wherever_they_are_and_others_have_their_own(clock: Clock) -> None:
    assert times(Viewer(User(pk=7), "s", "192.0.2.1", by_session=True)) == 6
    assert times(Viewer(User(pk=7), None, "192.0.2.2")) == 0
    assert times(Viewer(User(pk=8), "s", "192.0.2.1")) == 6


def test_who_is_not_signed_in_shares_a_bucket_with_the_address_whatever_the_session(
    clock: Clock,
) -> None:
    assert times(Viewer(AnonymousUser(), "one", "192.0.2.1")) == 60
    assert times(Viewer(AnonymousUser(), "two", "192.0.2.1")) == 0
    assert times(Viewer(None, None, "192.0.2.1")) == 0
    assert times(Viewer(AnonymousUser(), "one", "192.0.2.2")) == 60


def test_a_replay_counts_and_a_large_one_delays_the_next_request_by_a_minute_more_at_most(clock: Clock) -> None:
    rates.charge(SOMEBODY, 10 * rates.REPLAY_EVENTS)
    assert times(SOMEBODY) == 50
    rates.charge(SOMEBODY, 10_000 * rates.REPLAY_EVENTS)
    clock.now += 60
    assert times(SOMEBODY) == 0
    clock.now += 1
    assert times(SOMEBODY) == 1


def test_a_request_of_many_topics_counts_as_several_and_never_as_more_than_a_minute_brings(clock: Clock) -> None:
    rates.take(SOMEBODY, rates.REQUEST_TOPICS)
    rates.take(SOMEBODY, 5 * rates.REQUEST_TOPICS)
    assert times(SOMEBODY) == 60 - 1 - 5
    user = Viewer(User(pk=7), None, "192.0.2.1")
    rates.take(user, 50 * rates.REQUEST_TOPICS)
    assert times(user) == 0, "a full bucket was enough, and is empty now"


def test_nothing_was_replayed_and_nothing_is_charged(clock: Clock) -> None:
    rates.charge(SOMEBODY, 0)
    assert rates._buckets._levels == {}


def test_a_setting_of_nought_is_no_limit(clock: Clock, settings: Any) -> None:
    settings.LIVEFEED_CONNECTS_PER_MINUTE = 0
    rates.charge(SOMEBODY, 10**9)
    for _ in range(1000):
        rates.take(SOMEBODY)


def test_buckets_are_bounded_and_the_longest_untouched_goes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "BUCKETS", 3)
    buckets = Buckets(clock)
    for name in ("a", "b", "c", "a", "d"):
        assert buckets.take(name, 2)
    assert not buckets.take("a", 2)
    assert list(buckets._levels) == ["c", "d", "a"]
    assert buckets.take("b", 2), "it was forgotten, and is full again"


def test_threads_that_take_in_the_same_moment_get_just_what_there_is() -> None:
    buckets = Buckets(lambda: 1000.0)
    taken = at_once([lambda: sum(buckets.take("a", 100) for _ in range(50))] * 8)
    assert sum(taken) == 100


async def test_whoever_comes_too_often_is_told_so_and_takes_no_place(
    clock: Clock, roster: Roster, async_client: AsyncClient
) -> None:
    for _ in range(60):
        assert (await async_client.head("/livefeed/?topic=nobody.knows")).status_code == 404
    async with open_stream("plain") as stream:
        assert stream.status == 429
        assert 15 <= int(stream.headers["retry-after"]) <= 30
    async with open_stream("plain", headers={"sec-fetch-mode": "cors"}) as stream:
        event = await stream.next()
        assert (event.type, event.json["reason"], event.json["limit"]) == ("livefeed-refused", "rate", 60)
    response = await async_client.get("/livefeed/?topic=plain", headers={"accept": "application/json"})
    assert response.status_code == 429
    assert len(roster) == 0


async def test_credentials_that_do_not_hold_count_as_well(
    clock: Clock, roster: Roster, async_client: AsyncClient, settings: Any
) -> None:
    settings.LIVEFEED_AUTHENTICATION = ["tests.test_rates.wrong"]
    statuses = [(await async_client.head("/livefeed/?topic=plain")).status_code for _ in range(61)]
    assert statuses == [401] * 60 + [429]


async def test_what_a_client_that_was_away_makes_us_read_counts(clock: Clock, roster: Roster) -> None:
    for n in range(3):
        await apublish("plain", {"n": n})
    since = await acursor("plain")
    await sync_to_async(append)("plain", *range(400))
    async with open_stream("plain", cursor=since) as stream:
        while numbers([await stream.next()]) != [399]:
            pass
    nobody = Viewer(AnonymousUser(), None, "127.0.0.1")
    assert times(nobody) == 57, "one for the request, and two for four hundred events"


async def test_a_request_counts_as_the_topics_it_names_whatever_becomes_of_them(
    clock: Clock, roster: Roster, async_client: AsyncClient
) -> None:
    topics = "&".join(f"topic=nobody.knows:{n}" for n in range(30))
    assert (await async_client.head(f"/livefeed/?{topics}")).status_code == 404
    assert times(Viewer(AnonymousUser(), None, "127.0.0.1")) == 57


async def test_a_long_snapshot_counts_before_it_is_made_so_that_many_at_once_are_too_many(
    clock: Clock, roster: Roster, async_client: AsyncClient
) -> None:
    page, accept = "/livefeed/?topic=testapp.article", {"accept": "text/html"}
    for items in (1, 10):
        response = await async_client.get(f"{page}&limit={items * rates.SNAPSHOT_ITEMS}", headers=accept)
        assert response.status_code == 200
    assert times(Viewer(AnonymousUser(), None, "127.0.0.1")) == 60 - 1 - 10
    rates.forget()
    longest = await asyncio.gather(*(async_client.get(f"{page}&limit=9999", headers=accept) for _ in range(4)))
    assert sorted(response.status_code for response in longest) == [200, 429, 429, 429]


async def test_a_page_of_history_counts_as_what_it_holds(
    clock: Clock, roster: Roster, async_client: AsyncClient
) -> None:
    await apublish("plain", 0)
    since = await acursor("plain")
    await sync_to_async(append)("plain", *range(300))
    accept = {"accept": "application/json"}
    page = (await async_client.get(f"/livefeed/?topic=plain&since={since}", headers=accept)).json()
    assert len(page["events"]) == 200
    assert times(Viewer(AnonymousUser(), None, "127.0.0.1")) == 58
