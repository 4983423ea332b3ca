"""The view: what it answers to whom, by method, Accept, topic, token and limit; it never redirects and never fails."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.test import AsyncClient, Client
from django.urls import reverse

from livefeed import apublish
from livefeed.history import acursor, cursor, get_history
from livefeed.models import Lease
from livefeed.rates import Buckets
from livefeed.roster import Roster
from livefeed.testing import open_stream
from livefeed.topics import sign_topic
from livefeed.views import MAX_QUERY
from tests.reading import append, eventually, parse
from tests.testapp.models import Article, Note

pytest_plugins = ["tests.reading_fixtures"]

PLAIN = "plain"
ARTICLES = "testapp.article"
EVENTS, JSON, HTML = "text/event-stream", "application/json", "text/html"
BROWSERS = [{"sec-fetch-mode": "cors"}, {"user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}]


def url(*topics: str, **query: str) -> str:
    return f"{reverse('livefeed:stream')}?{urlencode([('topic', topic) for topic in topics] + list(query.items()))}"


async def get(
    client: AsyncClient, accept: str, /, *topics: str, headers: dict[str, str] | None = None, **query: str
) -> Any:
    return await client.get(url(*topics, **query), headers={"accept": accept, **(headers or {})})


def assert_problem(response: Any, status: int, *words: str) -> None:
    """Check an answer that is an error: its status, its form (RFC 9457), and what it tells."""
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert "no-store" in response["Cache-Control"]
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    for word in words:
        assert word in problem["detail"]


# -- methods and Accept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "type"),
    [
        ("text/html, text/event-stream", EVENTS),  # htmx 4; of equals the order means nothing
        ("text/event-stream, text/html", EVENTS),
        ("text/html, text/event-stream;q=0.9", HTML),
        ("text/html,application/xhtml+xml,*/*;q=0.8", HTML),  # a browser that is led here by a link
        ("text/*, application/json", JSON),
        ("application/json, */*", JSON),
        ("*/*", EVENTS),
        ("text/html;a*=bogus'en'%20, application/json", "application/problem+json"),
    ],
)
async def test_what_is_accepted_most_is_answered(
    roster: Roster, async_client: AsyncClient, accept: str, type: str
) -> None:
    response = await async_client.get(url(ARTICLES), headers={"accept": accept})
    assert response["Content-Type"].partition(";")[0] == type
    if type == EVENTS:
        await response.streaming_content.aclose()


async def test_head_tells_the_headers_and_opens_nothing(roster: Roster, async_client: AsyncClient) -> None:
    response = await async_client.head(url(PLAIN), headers={"accept": EVENTS})
    assert response.status_code == 200
    assert response["Content-Type"] == EVENTS
    assert response["Cache-Control"] == "private, no-store, no-transform"
    assert response.content == b""
    assert len(roster) == 0
    assert not await Lease.objects.aexists()


async def test_head_says_404_as_get_does(roster: Roster, async_client: AsyncClient) -> None:
    assert (await async_client.head(url("nobody.knows"), headers={"accept": EVENTS})).status_code == 404


async def test_options_names_the_methods(roster: Roster, async_client: AsyncClient) -> None:
    response = await async_client.options(url(PLAIN))
    assert response.status_code == 200
    assert response["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
async def test_any_other_method_is_refused(roster: Roster, async_client: AsyncClient, method: str) -> None:
    response = await getattr(async_client, method)(url(PLAIN), headers={"accept": EVENTS})
    assert_problem(response, 405, "GET")
    assert response["Allow"] == "GET, HEAD, OPTIONS"


async def test_what_we_can_t_make_is_not_acceptable(roster: Roster, async_client: AsyncClient) -> None:
    assert_problem(await get(async_client, "image/png", PLAIN), 406, EVENTS, JSON, HTML)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/event-stream", EVENTS),
        ("*/*", EVENTS),
        ("text/*;q=0.5, text/event-stream", EVENTS),
        ("application/json", JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", HTML),
        ("application/json, text/html;q=0.5", JSON),
    ],
)
async def test_the_client_s_favourite_is_answered(
    roster: Roster, async_client: AsyncClient, accept: str, content_type: str
) -> None:
    response = await async_client.head(url(ARTICLES), headers={"accept": accept})
    assert response.status_code == 200
    assert response["Content-Type"].partition(";")[0] == content_type


async def test_without_accept_it_is_a_stream(roster: Roster, async_client: AsyncClient) -> None:
    assert (await async_client.head(url(PLAIN)))["Content-Type"] == EVENTS


# -- what a client may get wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [EVENTS, JSON, HTML])
@pytest.mark.parametrize("topic", ["", " ", "a b", "a\nb", "a\0b", ":a", "ä", "a/b", "x" * 201, "~", "~a~b", "a%00"])
async def test_a_malformed_topic_is_a_bad_request(
    roster: Roster, async_client: AsyncClient, accept: str, topic: str
) -> None:
    assert_problem(await get(async_client, accept, topic), 400, "is not a topic name")


async def test_no_topic_is_a_bad_request(roster: Roster, async_client: AsyncClient) -> None:
    assert_problem(await get(async_client, EVENTS), 400, "?topic=")


async def test_too_many_topics_are_a_bad_request(roster: Roster, async_client: AsyncClient, settings: Any) -> None:
    settings.LIVEFEED_MAX_TOPICS = 3
    assert_problem(await get(async_client, EVENTS, *(f"plain:{n}" for n in range(4))), 400, "4", "3")


@pytest.mark.parametrize("client", ["a b", "a" * 65, "ä", "a\nb", "a.b"])
async def test_a_malformed_client_is_a_bad_request(roster: Roster, async_client: AsyncClient, client: str) -> None:
    assert_problem(await get(async_client, EVENTS, PLAIN, client=client), 400, "client")


@pytest.mark.parametrize("text", ["!", "a b", "x" * 5000, "é", "AAAA..", "."])
async def test_a_malformed_cursor_is_a_bad_request_for_a_page(
    roster: Roster, async_client: AsyncClient, text: str
) -> None:
    assert_problem(await get(async_client, JSON, PLAIN, since=text), 400, "not a cursor")


@pytest.mark.parametrize("text", ["!", "a b", "x" * 5000, "é", "AAAA..", "\x00"])
async def test_a_malformed_cursor_is_a_reset_for_a_stream(roster: Roster, text: str) -> None:
    async with open_stream(PLAIN, query=[("since", text)]) as stream:
        _, reset = await stream.take(2)
    assert reset.json["reason"] == "garbage"


async def test_bytes_that_are_no_text_in_the_header_are_a_reset(roster: Roster) -> None:
    async with open_stream(PLAIN, headers={"last-event-id": "\xff\xfe"}) as stream:
        _, reset = await stream.take(2)
    assert reset.json["reason"] == "garbage"


async def test_the_most_topics_allowed_fit_into_one_kibibyte_of_cursor(roster: Roster) -> None:
    topics = [f"plain:{'x' * 40}{n}" for n in range(50)]

    def fill() -> None:
        for topic in topics:
            append(topic, 1)

    await sync_to_async(fill)()
    async with open_stream(*topics) as stream:
        opening = await stream.next()
    assert opening.json["topics"] == topics
    assert len(opening.id) < 1024
    async with open_stream(topics[0]) as stream:
        assert len((await stream.next()).id) < 128


async def test_a_topic_named_twice_is_one(roster: Roster) -> None:
    async with open_stream(PLAIN, PLAIN) as stream:
        assert (await stream.next()).json["topics"] == [PLAIN]
        await apublish(PLAIN, {"n": 1})
        assert (await stream.next()).topic == ""


# -- who may read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [EVENTS, JSON, HTML])
async def test_unknown_and_forbidden_topics_look_alike(roster: Roster, async_client: AsyncClient, accept: str) -> None:
    await apublish("testapp.review", {"n": 1})
    await apublish("unowned", {"n": 1})
    names = [
        "nobody.knows",  # never existed
        "testapp.review",  # not for anonymous
        "unowned",  # needs a signature
        sign_topic("unowned", "user:7"),  # somebody else's
        sign_topic("testapp.review", "anonymous"),  # a signature opens no feed's topic
        "unowned~1~forged",
    ]
    answers = []
    for name in names:
        response = await get(async_client, accept, name)
        answers.append((response.status_code, response.content, dict(response.items())))
    assert {status for status, _, _ in answers} == {404}
    assert all(answer == answers[0] for answer in answers)


async def test_one_refused_topic_does_not_end_the_others(roster: Roster, async_client: AsyncClient) -> None:
    async with open_stream("nobody.knows", PLAIN, "testapp.review") as stream:
        opening = await stream.next()
        assert (opening.json["topics"], opening.json["refused"]) == ([PLAIN], ["nobody.knows", "testapp.review"])
        await apublish("testapp.review", {"n": 1})
        await apublish(PLAIN, {"n": 2})
        event = await stream.next()
        assert (event.json, event.topic) == ({"n": 2}, "")
    page = (await get(async_client, JSON, "nobody.knows", PLAIN)).json()
    assert (page["topics"], page["refused"]) == ([PLAIN], ["nobody.knows"])


async def test_refused_names_come_back_as_they_were_sent(roster: Roster) -> None:
    name = sign_topic("unowned", "user:7")
    async with open_stream(name, PLAIN) as stream:
        assert (await stream.next()).json["refused"] == [name]


async def test_an_accept_header_that_takes_long_to_weigh_is_not_weighed(async_client: AsyncClient) -> None:
    response = await get(async_client, "a/b," * 600 + EVENTS, PLAIN)
    assert_problem(response, 406)


async def test_a_query_longer_than_all_that_is_allowed_is_not_read(async_client: AsyncClient) -> None:
    assert_problem(await get(async_client, EVENTS, PLAIN, x="a" * MAX_QUERY), 414)


async def test_a_token_that_does_not_hold_is_401(roster: Roster, async_client: AsyncClient) -> None:
    response = await get(async_client, EVENTS, "testapp.review", headers={"authorization": "Bearer wrong"})
    assert_problem(response, 401)
    assert response["WWW-Authenticate"] == "Bearer"


async def test_a_token_is_not_asked_for_where_the_topic_is_open(roster: Roster) -> None:
    async with open_stream(PLAIN, headers={"authorization": "Bearer wrong"}) as stream:
        assert stream.status == 200


async def test_somebody_signed_in_who_may_not_read_gets_404(roster: Roster, async_client: AsyncClient) -> None:
    await async_client.aforce_login(await User.objects.acreate_user("ann"))
    response = await get(async_client, EVENTS, "testapp.review", headers={"authorization": "Basic x"})
    assert_problem(response, 404)


async def test_the_view_permission_opens_a_model_s_topic(roster: Roster) -> None:
    user = await User.objects.acreate_user("ann")
    permission = await Permission.objects.aget(codename="view_review")
    await sync_to_async(user.user_permissions.add)(permission)
    async with open_stream("testapp.review", user=user) as stream:
        assert (await stream.next()).json["topics"] == ["testapp.review"]


async def test_a_rule_that_is_a_coroutine_is_awaited(roster: Roster, async_client: AsyncClient) -> None:
    async with open_stream("build:42", user=await User.objects.acreate_user("ann")) as stream:
        assert stream.status == 200
    assert_problem(await get(async_client, EVENTS, "build:42"), 404)


async def test_a_signed_name_opens_a_topic_that_no_feed_owns(roster: Roster) -> None:
    user = await User.objects.acreate_user("ann")
    async with open_stream(sign_topic("unowned", f"user:{user.pk}"), user=user) as stream:
        assert (await stream.next()).json["topics"] == ["unowned"]
        await apublish("unowned", {"n": 1})
        assert (await stream.next()).json == {"n": 1}


# -- middleware and settings of the site ------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [EVENTS, JSON, HTML])
async def test_login_required_middleware_never_turns_it_into_a_redirect(
    roster: Roster, async_client: AsyncClient, settings: Any, accept: str
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert (await async_client.head(url(ARTICLES), headers={"accept": accept})).status_code == 200
    assert_problem(await get(async_client, accept, "testapp.review"), 404)


async def test_atomic_requests_on_every_database_are_no_obstacle(
    roster: Roster, monkeypatch: pytest.MonkeyPatch, async_client: AsyncClient
) -> None:
    for alias in connections.settings:
        monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", True)
    async with open_stream(ARTICLES) as stream:
        await stream.next()
        await Article.objects.acreate(title="Hello")
        assert (await stream.next()).json["title"] == "Hello"
    assert (await get(async_client, JSON, ARTICLES)).status_code == 200


async def test_gzip_middleware_packs_pages_and_leaves_streams_alone(roster: Roster, async_client: AsyncClient) -> None:
    await apublish(PLAIN, {"text": "x" * 1000})
    packed = {"accept-encoding": "gzip"}
    page = await async_client.get(url(PLAIN, since=(await acursor(PLAIN))), headers={"accept": JSON, **packed})
    assert page.status_code == 200
    async with open_stream(PLAIN, headers=packed) as stream:
        await stream.next()
        await apublish(PLAIN, {"text": "y" * 1000})
        assert (await stream.next()).json == {"text": "y" * 1000}


async def test_a_site_without_sessions_and_users_works(roster: Roster, settings: Any) -> None:
    settings.MIDDLEWARE = []
    async with open_stream(PLAIN) as stream:
        await stream.next()
        await apublish(PLAIN, {"n": 1})
        assert (await stream.next()).json == {"n": 1}


# -- WSGI -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_under_wsgi_a_stream_says_what_to_do_instead_of_blocking_a_worker(client: Client) -> None:
    response = client.get(url(PLAIN), headers={"accept": EVENTS})
    assert_problem(response, 501, "WSGI", "ASGI", "Daphne", JSON)
    assert not Lease.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_under_wsgi_pages_and_snapshots_work(client: Client) -> None:
    since = cursor(ARTICLES)
    Article.objects.create(title="Hello")
    page = client.get(url(ARTICLES, since=since), headers={"accept": JSON}).json()
    assert [event["data"]["title"] for event in page["events"]] == ["Hello"]
    assert "Hello" in client.get(url(ARTICLES), headers={"accept": HTML}).text
    assert_problem(client.get(url("nobody.knows"), headers={"accept": JSON}), 404)


# -- limits -----------------------------------------------------------------------------------------------------------


def over_the_limit(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1


def over_capacity(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS = 1


def draining(roster: Roster, settings: Any) -> None:
    roster.draining = True


REFUSALS = {"limit": (over_the_limit, 429), "capacity": (over_capacity, 503), "shutdown": (draining, 503)}


@pytest.mark.parametrize("accept", [JSON, HTML])
async def test_a_browser_that_asked_for_no_stream_is_refused_by_status(
    settings: Any, roster: Roster, async_client: AsyncClient, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LIVEFEED_CONNECTS_PER_MINUTE = 1
    monkeypatch.setattr("livefeed.rates._buckets", Buckets(lambda: 1000.0))
    answers = [await get(async_client, accept, ARTICLES, headers=BROWSERS[0]) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert_problem(answers[-1], 429, "rate")


@pytest.mark.parametrize("browser", BROWSERS, ids=["Sec-Fetch-Mode", "User-Agent"])
@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_browser_that_is_one_too_many_gets_a_stream_that_says_when_to_come_back(
    roster: Roster, settings: Any, reason: str, browser: dict[str, str]
) -> None:
    async with open_stream(PLAIN) as first:
        await first.next()
        REFUSALS[reason][0](roster, settings)
        async with open_stream(PLAIN, headers=browser) as second:
            body = await second.body()
        assert len(roster) == 1
    assert second.status == 200
    assert second.headers["content-type"] == EVENTS
    assert second.headers["cache-control"] == "private, no-store, no-transform"
    assert body.startswith(b"retry: ")
    assert b"id:" not in body
    (event,) = parse(body, "before")
    assert event.type == "livefeed-refused"
    assert event.json["reason"] == reason
    assert event.json["limit"] == (0 if reason == "shutdown" else 1)
    assert event.json["of"] == ("address" if reason == "limit" else "")
    assert 15_000 <= event.json["retry"] <= 30_000
    assert body.startswith(f"retry: {event.json['retry']}\n".encode())


@pytest.mark.parametrize("reason", REFUSALS)
async def test_everybody_else_who_is_one_too_many_gets_a_status(
    roster: Roster, settings: Any, async_client: AsyncClient, reason: str
) -> None:
    async with open_stream(PLAIN) as first:
        await first.next()
        REFUSALS[reason][0](roster, settings)
        response = await get(async_client, EVENTS, PLAIN)
    assert_problem(response, REFUSALS[reason][1], "of the address (1 allowed)" if reason == "limit" else reason)
    assert 15 <= int(response["Retry-After"]) <= 30


async def test_pages_and_snapshots_are_not_counted(roster: Roster, settings: Any, async_client: AsyncClient) -> None:
    async with open_stream(PLAIN) as first:
        await first.next()
        settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
        for accept in (JSON, HTML):
            assert (await get(async_client, accept, ARTICLES)).status_code == 200


async def test_a_place_is_free_again_when_a_stream_has_ended(
    roster: Roster, settings: Any, async_client: AsyncClient
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    async with open_stream(PLAIN) as first:
        await first.next()
        assert (await get(async_client, EVENTS, PLAIN)).status_code == 429
    await eventually(_no_lease, "the lease is given back")
    async with open_stream(PLAIN) as second:
        assert second.status == 200


async def _no_lease() -> bool:
    return not await Lease.objects.aexists()


async def test_a_reconnect_of_the_same_client_takes_its_own_place_over(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    settings.LIVEFEED_LEASE_SECONDS = 0.3
    async with open_stream(PLAIN, query=[("client", "page-1")]) as ghost:
        await ghost.next()
        async with open_stream(PLAIN, query=[("client", "page-1")]) as stream:
            assert (await stream.next()).type == "livefeed-open"
            closing = await ghost.next()
            assert (closing.type, closing.json) == ("livefeed-closing", {"reason": "taken-over"})
            with pytest.raises(EOFError):
                await ghost.next()
            await apublish(PLAIN, {"n": 1})
            assert (await stream.next()).json == {"n": 1}
            assert await Lease.objects.acount() == 1


async def test_another_client_does_not_take_a_place_over(
    roster: Roster, settings: Any, async_client: AsyncClient
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    async with open_stream(PLAIN, query=[("client", "page-1")]) as stream:
        await stream.next()
        assert (await get(async_client, EVENTS, PLAIN, client="page-2")).status_code == 429


async def test_nobody_takes_over_the_place_of_another_holder(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 1
    ann, bob = await User.objects.acreate_user("ann"), await User.objects.acreate_user("bob")
    async with (
        open_stream(PLAIN, user=ann, query=[("client", "same")]) as first,
        open_stream(PLAIN, user=bob, query=[("client", "same")]) as second,
    ):
        await first.next()
        await second.next()
        assert await Lease.objects.acount() == 2


async def test_users_are_counted_by_themselves_however_many_sessions_they_have(roster: Roster, settings: Any) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_USER = 1
    ann, bob = await User.objects.acreate_user("ann"), await User.objects.acreate_user("bob")
    async with open_stream(PLAIN, user=ann) as first, open_stream(PLAIN, user=bob) as second:
        await first.next()
        await second.next()
        async with open_stream(PLAIN, user=ann) as third:
            assert third.status == 429


async def test_those_who_connect_in_the_same_moment_never_get_more_places_than_there_are(
    roster: Roster, settings: Any
) -> None:
    settings.LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 3
    everyone_answered, answered = asyncio.Event(), []

    async def connect() -> None:
        async with open_stream(PLAIN) as stream:
            answered.append(stream.status)
            if len(answered) == 8:
                everyone_answered.set()
            await everyone_answered.wait()

    await asyncio.gather(*(connect() for _ in range(8)))
    assert sorted(answered) == [200] * 3 + [429] * 5


# -- a history that is away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OperationalError, DatabaseError, InterfaceError])
async def test_a_history_that_is_away_is_a_503_and_costs_no_place(
    roster: Roster, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def away(topics: Any) -> Any:
        raise error("away")

    with monkeypatch.context() as patch:
        patch.setattr(get_history(), "heads", away)
        for accept in (EVENTS, JSON, HTML):
            response = await get(async_client, accept, ARTICLES)
            assert_problem(response, 503)
            assert int(response["Retry-After"]) > 0
    assert len(roster) == 0
    await eventually(_no_lease, "no lease is left")
    async with open_stream(ARTICLES) as stream:
        assert stream.status == 200


@pytest.mark.parametrize("browser", BROWSERS, ids=["Sec-Fetch-Mode", "User-Agent"])
async def test_a_history_that_is_away_does_not_end_a_browser_s_stream_for_good(
    roster: Roster, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch, browser: dict[str, str]
) -> None:
    def away(topics: Any) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr(get_history(), "heads", away)
    async with open_stream(PLAIN, headers=browser) as stream:
        body = await stream.body()
    assert stream.status == 200
    assert stream.headers["content-type"] == EVENTS
    assert [event.type for event in parse(body)] == ["livefeed-refused"]


# -- pages of history -------------------------------------------------------------------------------------------------


async def test_a_page_without_a_cursor_says_where_the_topics_stand(roster: Roster, async_client: AsyncClient) -> None:
    await apublish(PLAIN, {"n": 1})
    response = await get(async_client, JSON, PLAIN)
    assert response["Cache-Control"] == "private, no-store"
    assert response.json() == {
        "topics": [PLAIN],
        "unnamed": [PLAIN],
        "refused": [],
        "events": [],
        "cursor": await acursor(PLAIN),
        "more": False,
        "resets": [],
    }


async def test_a_page_shows_events_with_all_there_is_to_know(roster: Roster, async_client: AsyncClient) -> None:
    since = await acursor(PLAIN)
    event = await apublish(PLAIN, {"n": 1}, type="progress")
    page = (await get(async_client, JSON, PLAIN, since=since)).json()
    assert page["events"] == [
        {
            "topic": PLAIN,
            "seq": 1,
            "type": "progress",
            "data": {"n": 1},
            "created_at": page["events"][0]["created_at"],
            "id": event.id,
        }
    ]
    assert page["cursor"] == await acursor(PLAIN)


async def test_pages_follow_each_other_without_a_hole_or_a_double(
    roster: Roster, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livefeed.pages.LIMIT", 4)
    since = await acursor(PLAIN, ARTICLES)
    for n in range(9):
        await apublish(PLAIN, {"n": n})
        await apublish(ARTICLES, {"n": n})
    found, more = [], True
    while more:
        page = (await get(async_client, JSON, PLAIN, ARTICLES, since=since)).json()
        found += [(event["topic"], event["data"]["n"]) for event in page["events"]]
        since, more = page["cursor"], page["more"]
    assert found == [(topic, n) for n in range(9) for topic in (PLAIN, ARTICLES)]


async def test_a_page_s_cursor_opens_a_stream_and_a_stream_s_a_page(roster: Roster, async_client: AsyncClient) -> None:
    since = (await get(async_client, JSON, PLAIN)).json()["cursor"]
    await apublish(PLAIN, {"n": 1})
    async with open_stream(PLAIN, cursor=since) as stream:
        _, first = await stream.take(2)
    await apublish(PLAIN, {"n": 2})
    page = (await get(async_client, JSON, PLAIN, headers={"last-event-id": first.id})).json()
    assert [event["data"]["n"] for event in page["events"]] == [2]


async def test_a_page_tells_what_it_can_t_follow(roster: Roster, async_client: AsyncClient) -> None:
    await apublish(PLAIN, {"n": 1})
    since = await acursor(PLAIN)
    await sync_to_async(get_history().renew_epoch)([PLAIN])
    page = (await get(async_client, JSON, PLAIN, since=since)).json()
    assert page["resets"] == [{"topic": PLAIN, "reason": "epoch"}]
    assert (page["events"], page["cursor"]) == ([], await acursor(PLAIN))


# -- snapshots --------------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_the_items_and_their_cursor(roster: Roster, async_client: AsyncClient) -> None:
    await Article.objects.acreate(title="<Hello>")
    response = await get(async_client, HTML, ARTICLES)
    text = response.text
    assert response["Cache-Control"] == "private, no-store"
    assert text.startswith(f'<div data-live-snapshot data-cursor="{await acursor(ARTICLES)}">')
    assert "&lt;Hello&gt;" in text
    assert "<html" not in text
    assert "<live-feed" not in text


async def test_a_snapshot_shows_as_many_items_as_are_asked_for(roster: Roster, async_client: AsyncClient) -> None:
    await Article.objects.abulk_create([Article(title=f"Number {n}") for n in range(30)])
    for query, count in [({}, 20), ({"limit": "7"}, 7), ({"limit": "9999"}, 30)]:
        assert (await get(async_client, HTML, ARTICLES, **query)).text.count("<article") == count


@pytest.mark.parametrize("limit", ["0", "-1", "x", "10000", "1.5", "٣"])
async def test_a_snapshot_of_no_number_of_items_is_a_bad_request(
    roster: Roster, async_client: AsyncClient, limit: str
) -> None:
    assert_problem(await get(async_client, HTML, ARTICLES, limit=limit), 400, "limit")


async def test_a_snapshot_is_of_one_topic(roster: Roster, async_client: AsyncClient) -> None:
    assert_problem(await get(async_client, HTML, ARTICLES, PLAIN), 400, "one topic")


async def test_a_topic_without_items_has_no_snapshot(roster: Roster, async_client: AsyncClient) -> None:
    assert_problem(await get(async_client, HTML, PLAIN), 406, "no items")


async def test_a_snapshot_shows_what_the_topic_is_about(roster: Roster, async_client: AsyncClient) -> None:
    await Note.objects.acreate(board="open", text="here")
    await Note.objects.acreate(board="opening", text="there")
    text = (await get(async_client, HTML, "testapp.note:open")).text
    assert "here" in text
    assert "there" not in text


async def test_a_snapshot_may_be_the_number_of_items(roster: Roster, async_client: AsyncClient) -> None:
    await Article.objects.abulk_create([Article() for _ in range(17)])
    response = await get(async_client, HTML, ARTICLES, show="count")
    taken = await acursor(ARTICLES)
    assert response.text == f'<div data-live-snapshot data-cursor="{taken}" data-value="17"></div>'
    assert response["Cache-Control"] == "private, no-store"
    assert 'data-value="0"' in (await get(async_client, HTML, "testapp.note:open", show="count")).text


async def test_a_snapshot_may_be_the_newest_value_or_that_of_a_row(roster: Roster, async_client: AsyncClient) -> None:
    nothing = (await get(async_client, HTML, PLAIN, show="value")).text
    assert nothing == f'<div data-live-snapshot data-cursor="{await acursor(PLAIN)}"></div>'
    await apublish(PLAIN, {"percent": 70})
    newest = (await get(async_client, HTML, PLAIN, show="value")).text
    assert f'data-cursor="{await acursor(PLAIN)}" data-value="{{&quot;percent&quot;:70}}"' in newest
    article = await Article.objects.acreate(title="Mine", votes=3)
    row = (await get(async_client, HTML, ARTICLES, show="value", key=str(article.pk))).text
    assert "&quot;votes&quot;:3" in row
    for key in ("0", "no number", "9" * 30, "-1"):
        answer = await get(async_client, HTML, ARTICLES, show="value", key=key)
        assert (answer.status_code, "data-value" in answer.text) == (200, False), key


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"show": "everything"}, 'show is "items", "count" or "value"'),
        ({"show": "value", "key": ""}, "key is"),
        ({"show": "value", "key": "x" * 201}, "key is"),
        ({"show": "value", "key": "a\x00b"}, "key is"),
    ],
)
async def test_a_snapshot_of_what_there_is_not_is_a_bad_request(
    roster: Roster, async_client: AsyncClient, query: dict[str, str], words: str
) -> None:
    assert_problem(await get(async_client, HTML, ARTICLES, **query), 400, words)


@pytest.mark.parametrize("query", [{"show": "count"}, {"show": "value", "key": "1"}])
async def test_a_topic_without_rows_has_no_number_of_them(
    roster: Roster, async_client: AsyncClient, query: dict[str, str]
) -> None:
    assert_problem(await get(async_client, HTML, PLAIN, **query), 406, "This topic has no")


@pytest.mark.parametrize("show", ["items", "count", "value"])
async def test_every_snapshot_is_closed_where_the_stream_is(
    roster: Roster, async_client: AsyncClient, show: str
) -> None:
    assert_problem(await get(async_client, HTML, "testapp.review", show=show), 404, "not for you")


async def test_an_accept_header_that_can_t_be_decoded_is_a_406(async_client: Any) -> None:
    response = await async_client.get("/livefeed/?topic=plain", headers={"accept": "text/html;a*=bogus''%41"})
    assert response.status_code == 406
