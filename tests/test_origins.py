"""Pages of other origins: refused before they cost anything, but for those that are named exactly."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient, RequestFactory

from livefeed.models import Lease
from livefeed.origins import headers, is_foreign, origin_problem
from livefeed.roster import Roster
from livefeed.testing import open_stream

pytest_plugins = ["tests.reading_fixtures"]

APP = "https://app.example.com"


@pytest.fixture(autouse=True)
def allowed(settings: Any) -> None:
    settings.LIVEFEED_ALLOWED_ORIGINS = [APP]


@pytest.mark.parametrize(
    ("sent", "foreign"),
    [
        ({}, False),  # no browser
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),  # typed into the address bar
        ({"sec-fetch-site": "same-site"}, True),  # a sibling subdomain
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "something-new"}, True),
        ({"sec-fetch-site": ""}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://other.example"}, False),  # a proxy changed our name
        ({"origin": "http://testserver"}, False),
        ({"origin": "https://testserver"}, True),
        ({"origin": "http://testserver:8000"}, True),
        ({"origin": "http://testserver.evil.example"}, True),
        ({"origin": "http://TESTSERVER"}, True),  # no browser writes it so
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": APP}, False),
        ({"origin": APP, "sec-fetch-site": "cross-site"}, False),
        ({"origin": APP, "sec-fetch-site": "same-site"}, False),
        ({"origin": f"{APP}.evil.example", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "https://evil.example/?https://app.example.com"}, True),
        ({"origin": "http://app.example.com"}, True),
        ({"origin": f"{APP}:8443"}, True),
        ({"origin": APP.upper()}, True),
        ({"origin": f"{APP}, https://evil.example"}, True),
        ({"referer": "https://evil.example/"}, False),  # proves nothing, and is often left out
    ],
)
def test_whose_page_a_request_comes_from(rf: RequestFactory, sent: dict[str, str], foreign: bool) -> None:
    assert is_foreign(rf.get("/", headers=sent)) is foreign


def test_behind_a_proxy_our_origin_is_the_one_that_the_proxy_tells(rf: RequestFactory, settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    sent = {"origin": "https://testserver", "host": "testserver", "x-forwarded-proto": "https"}
    request = rf.get("/", headers=sent)
    assert is_foreign(request) is False


@pytest.mark.parametrize("value", ["https://app.example.com", "*", "", "h", []])
def test_a_setting_that_is_no_list_of_origins_opens_nothing(rf: RequestFactory, settings: Any, value: Any) -> None:
    settings.LIVEFEED_ALLOWED_ORIGINS = value
    for origin in (APP, "https://", "*", "h", "https://evil.example"):
        request = rf.get("/", headers={"origin": origin, "sec-fetch-site": "cross-site"})
        assert is_foreign(request)
        assert headers(request.headers) == {"Vary": "Origin"}


def test_an_allowed_origin_may_read_with_credentials_and_caches_are_told(rf: RequestFactory) -> None:
    assert headers(rf.get("/", headers={"origin": APP}).headers) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
    }


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "http://testserver"])
def test_nobody_else_may_but_caches_are_told_all_the_same(rf: RequestFactory, origin: str | None) -> None:
    sent = {"access-control-request-method": "GET"} | ({"origin": origin} if origin else {})
    request = rf.options("/", headers=sent)
    assert headers(request.headers) == {"Vary": "Origin"}


@pytest.mark.parametrize(
    ("origin", "problem"),
    [
        ("https://app.example.com", ""),
        ("http://localhost:3000", ""),
        ("https://[::1]:8443", ""),
        ("capacitor://localhost", ""),
        ("app.example.com", "no origin"),
        ("https://app.example.com/", "no origin"),
        ("https://app.example.com/path", "no origin"),
        ("https://*.example.com", "no origin"),
        ("*", "no origin"),
        ("null", "no origin"),
        ("https://App.example.com", "no origin"),
        ("https://user@app.example.com", "no origin"),
        ("https://app.example.com https://b.example.com", "no origin"),
        ("https://app.example.com:443", "default port"),
        ("http://app.example.com:80", "default port"),
        ("http://app.example.com:443", ""),
        (None, "no origin"),
    ],
)
def test_what_can_be_an_origin(origin: object, problem: str) -> None:
    assert problem in origin_problem(origin)
    assert bool(problem) is bool(origin_problem(origin))


# -- the view ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json", "text/html", "*/*", "image/avif,*/*"])
@pytest.mark.parametrize(
    "sent",
    [
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "https://evil.example"},
        {"origin": "https://evil.example"},
    ],
)
async def test_a_foreign_page_is_refused_before_it_costs_anything(
    roster: Roster, async_client: AsyncClient, sent: dict[str, str], accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await User.objects.acreate_user("ann")
    await async_client.aforce_login(user)
    monkeypatch.delattr("livefeed.views.viewer_of")  # nobody asks who it is
    response = await async_client.get("/livefeed/?topic=plain", headers={"accept": accept, **sent})
    assert response.status_code == 403
    assert response["Content-Type"] == "application/problem+json"
    assert "LIVEFEED_ALLOWED_ORIGINS" in response.json()["detail"]
    assert response["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in response
    assert not await Lease.objects.aexists()


async def test_a_page_of_an_allowed_origin_reads_a_stream(roster: Roster) -> None:
    async with open_stream("plain", headers={"origin": APP, "sec-fetch-site": "cross-site"}) as stream:
        assert (stream.status, (await stream.next()).type) == (200, "livefeed-open")
        assert stream.headers["access-control-allow-origin"] == APP
        assert stream.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in stream.headers["vary"]


@pytest.mark.parametrize(
    ("topic", "accept", "status"),
    [("plain", "application/json", 200), ("nobody.knows", "text/event-stream", 404), ("plain", "image/png", 406)],
)
async def test_every_answer_to_an_allowed_origin_can_be_read_by_it(
    roster: Roster, async_client: AsyncClient, topic: str, accept: str, status: int
) -> None:
    sent = {"accept": accept, "origin": APP, "sec-fetch-site": "cross-site"}
    response = await async_client.get(f"/livefeed/?topic={topic}", headers=sent)
    assert response.status_code == status
    assert response["Access-Control-Allow-Origin"] == APP


async def test_a_preflight_says_what_an_allowed_origin_may_send(roster: Roster, async_client: AsyncClient) -> None:
    sent = {
        "origin": APP,
        "sec-fetch-site": "cross-site",
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization,last-event-id",
    }
    response = await async_client.options("/livefeed/?topic=plain", headers=sent)
    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == APP
    assert response["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert {"Authorization", "Last-Event-ID"} <= set(response["Access-Control-Allow-Headers"].split(", "))
    assert response["Access-Control-Max-Age"] == "600"
