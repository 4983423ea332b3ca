"""The door in front of Django: a few requests for streams inside, the others in lines, one for each address."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator

from livefeed import door as module
from livefeed.asgi import wrap
from livefeed.door import Door, Passage
from livefeed.entrance import MAX_BODY
from livefeed.exceptions import LimitReached
from tests.asgi import application
from tests.reading import eventually


@pytest.fixture(autouse=True)
def two_at_a_time(settings: Any) -> None:
    settings.LIVEFEED_CONNECTING = 2


def waiting(door: Door) -> int:
    return sum(len(line) for line in door._lines.values())


async def inside(door: Door, address: str, entered: list[str], name: str = "") -> Passage:
    passage = await door.enter(address)
    entered.append(name or address)
    return passage


async def test_a_few_are_let_in_and_the_others_come_in_as_those_leave() -> None:
    door, entered = Door(), list[str]()
    tasks = [asyncio.ensure_future(inside(door, "a", entered, name)) for name in "12345"]
    await eventually(lambda: waiting(door) == 3, "the others wait")
    assert entered == ["1", "2"]
    for count in (3, 4, 5):
        tasks[count - 3].result().leave()
        await eventually(lambda count=count: len(entered) == count, "the next one is in")
    assert entered == ["1", "2", "3", "4", "5"]
    for task in tasks[3:]:
        task.result().leave()
    assert (door._inside, waiting(door)) == (0, 0)


async def test_whoever_sends_many_waits_for_them_and_others_go_first() -> None:
    door, entered = Door(), list[str]()
    flood = [asyncio.ensure_future(inside(door, "flood", entered)) for _ in range(50)]
    await eventually(lambda: waiting(door) == 48, "the flood waits")
    honest = [asyncio.ensure_future(inside(door, address, entered)) for address in ("ann", "bob")]
    await eventually(lambda: waiting(door) == 50, "two more wait")
    for task in flood[:3]:
        (await task).leave()
        await asyncio.sleep(0)
    await eventually(lambda: "bob" in entered, "both are in")
    assert entered == ["flood", "flood", "flood", "ann", "bob"]
    for task in [*honest, *flood]:
        (await asyncio.wait_for(task, 5)).leave()
    assert (door._inside, waiting(door)) == (0, 0)


async def test_a_passage_makes_room_once_however_often_it_is_left() -> None:
    door = Door()
    one = await door.enter("a")
    await door.enter("a")
    one.leave()
    one.leave()
    assert door._inside == 1


async def test_who_gives_up_waiting_is_passed_over() -> None:
    door, entered = Door(), list[str]()
    first = await door.enter("a")
    await door.enter("a")
    tasks = [asyncio.ensure_future(inside(door, "a", entered, name)) for name in "12"]
    await eventually(lambda: waiting(door) == 2, "two wait")
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    first.leave()
    await eventually(lambda: entered == ["2"], "the second is in")
    assert door._inside == 2


async def test_who_gives_up_in_the_moment_of_its_turn_keeps_nobody_out() -> None:
    door, entered = Door(), list[str]()
    first = await door.enter("a")
    await door.enter("a")
    tasks = [asyncio.ensure_future(inside(door, "a", entered, name)) for name in "12"]
    await eventually(lambda: waiting(door) == 2, "two wait")
    first.leave()  # it is the first's turn now, and it has not heard of it yet
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    await eventually(lambda: entered == ["2"], "the second is in")
    assert door._inside == 2


async def test_a_line_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE", 3)
    door, entered = Door(), list[str]()
    tasks = [asyncio.ensure_future(inside(door, "a", entered)) for _ in range(5)]
    await eventually(lambda: waiting(door) == 3, "the line is full")
    with pytest.raises(LimitReached) as caught:
        await door.enter("a")
    assert (caught.value.reason, caught.value.limit) == ("capacity", 3)
    other = asyncio.ensure_future(inside(door, "b", entered))
    await eventually(lambda: waiting(door) == 4, "another address has a line of its own")
    for task in [*tasks, other]:
        (await task).leave()


async def test_without_a_limit_everybody_is_let_in(settings: Any) -> None:
    settings.LIVEFEED_CONNECTING = 0
    door = Door()
    passages = [await door.enter("a") for _ in range(100)]
    for passage in passages:
        passage.leave()
    assert door._inside == 0


async def test_nobody_waits_for_ever_for_those_inside_or_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    door, entered = Door(), list[str]()
    monkeypatch.setattr(module, "LONGEST_STAY", 0.2)
    hung = [await door.enter("a"), await door.enter("a")]  # they never leave by themselves
    waits = asyncio.ensure_future(inside(door, "a", entered))
    await asyncio.wait_for(waits, 5)
    await eventually(lambda: door._inside <= 1, "those who hang don't count any more")
    for passage in [*hung, waits.result()]:
        passage.leave()
    assert (door._inside, waiting(door)) == (0, 0)
    monkeypatch.setattr(module, "LONGEST_STAY", 3600.0)
    hung = [await door.enter("a"), await door.enter("a")]
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.01)
    with pytest.raises(LimitReached) as caught:
        await door.enter("a")
    assert (caught.value.reason, caught.value.limit) == ("capacity", 2)
    for passage in hung:
        passage.leave()
    assert (door._inside, waiting(door)) == (0, 0)


# -- in front of an application ---------------------------------------------------------------------------------------


class Site:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        self.fails = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await self.go.wait()
        if self.fails:
            raise ZeroDivisionError("oops")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        await receive()
        await receive()


SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/somewhere/",
    "query_string": b"",
    "client": ("192.0.2.1", 5),
    "headers": [(b"accept", b"text/event-stream")],
}


async def ask(
    site: Site,
    count: int,
    *,
    path: str = "/somewhere/",
    accept: bytes = b"text/event-stream",
    headers: Sequence[tuple[bytes, bytes]] = (),
    method: str = "GET",
) -> list[Any]:
    """Send so many requests, and let them come as far as they can."""
    scope = {**SCOPE, "method": method, "path": path}
    asking: list[Any] = []
    for _ in range(count):
        asking.append(ApplicationCommunicator(wrap(site), {**scope, "headers": [(b"accept", accept), *headers]}))
        await asking[-1].send_input({"type": "http.request", "body": b""})
    await asyncio.sleep(0)
    return asking


async def leave(communicators: list[Any]) -> None:
    for communicator in communicators:
        await communicator.send_input({"type": "http.disconnect"})
        await communicator.wait(5)


async def test_a_stream_that_has_begun_leaves_room_for_the_next_one() -> None:
    site = Site()
    communicators = await ask(site, 5)
    await asyncio.sleep(0)
    assert site.asked == 2
    site.go.set()
    for communicator in communicators:
        assert (await communicator.receive_output(5))["status"] == 200
    assert site.asked == 5
    await leave(communicators)
    assert (module.door()._inside, waiting(module.door())) == (0, 0)


async def test_a_body_that_does_not_come_keeps_no_place() -> None:
    site = Site()
    site.go.set()
    slow = []
    for _ in range(5):
        slow.append(ApplicationCommunicator(wrap(site), SCOPE))
        await slow[-1].send_input({"type": "http.request", "body": b"a", "more_body": True})
    (other,) = await ask(site, 1)
    assert (await other.receive_output(5))["status"] == 200
    assert (site.asked, module.door()._inside, waiting(module.door())) == (1, 0, 0)
    for communicator in slow:
        await communicator.send_input({"type": "http.request", "body": b"b"})
        assert (await communicator.receive_output(5))["status"] == 200
    await leave([*slow, other])


async def test_a_body_that_never_comes_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livefeed.entrance.BODY_SECONDS", 0.01)
    site = Site()
    communicator = ApplicationCommunicator(wrap(site), SCOPE)
    await communicator.send_input({"type": "http.request", "body": b"a", "more_body": True})
    assert (await communicator.receive_output(5))["status"] == 408
    assert (await communicator.receive_output(5))["more_body"] is False
    await communicator.wait(5)
    assert (site.asked, module.door()._inside) == (0, 0)


async def test_the_application_gets_the_body_that_came_before_it_was_asked() -> None:
    got: list[Any] = []

    async def site(scope: Any, receive: Any, send: Any) -> None:
        got.extend([await receive(), await receive()])

    communicator = ApplicationCommunicator(wrap(site), SCOPE)
    sent = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b", "more_body": False},
        {"type": "http.disconnect"},
    ]
    for message in sent:
        await communicator.send_input(message)
    await communicator.wait(5)
    assert got == [{"type": "http.request", "body": b"ab", "more_body": False}, {"type": "http.disconnect"}]


async def test_a_large_body_is_refused_before_anything_is_asked() -> None:
    site = Site()
    communicator = ApplicationCommunicator(wrap(site), SCOPE)
    await communicator.send_input({"type": "http.request", "body": b"a" * (MAX_BODY + 1), "more_body": True})
    assert (await communicator.receive_output(5))["status"] == 413
    assert (await communicator.receive_output(5))["more_body"] is False
    await communicator.wait(5)
    assert (site.asked, module.door()._inside) == (0, 0)


async def test_a_query_with_thousands_of_fields_and_a_charset_is_no_error_of_the_server_s() -> None:
    headers = [*SCOPE["headers"], (b"content-type", b"text/html; charset=utf-8")]
    scope = {**SCOPE, "path": "/livefeed/", "query_string": b"topic=a&" * 1100, "headers": headers}
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "http.request"})
    assert (await communicator.receive_output(5))["status"] == 400
    await communicator.receive_output(5)
    await communicator.wait(5)
    assert module.door()._inside == 0


@pytest.mark.parametrize(("method", "inside"), [("POST", 5), ("PUT", 5), ("HEAD", 2)])
async def test_only_what_can_be_answered_with_a_stream_waits_at_the_door(method: str, inside: int) -> None:
    site = Site()
    communicators = await ask(site, 5, method=method)
    await eventually(lambda: site.asked + waiting(module.door()) == 5, "everybody is inside or waits")
    assert site.asked == inside
    site.go.set()
    for communicator in communicators:
        assert (await communicator.receive_output(5))["status"] == 200
    await leave(communicators)


async def test_a_request_that_fails_leaves_room_too() -> None:
    site = Site()
    site.fails = True
    communicators = await ask(site, 5)
    site.go.set()
    for communicator in communicators:
        with pytest.raises(ZeroDivisionError):
            await communicator.wait(5)
    assert site.asked == 5
    assert (module.door()._inside, waiting(module.door())) == (0, 0)


@pytest.mark.parametrize(
    ("path", "accept", "inside"),
    [
        ("/anything/", b"text/event-stream", 2),
        ("/livefeed/", b"*/*", 2),
        ("/under/a/prefix/livefeed/", b"application/json", 2),
        ("/livefeed/elsewhere/", b"text/html", 5),
        ("/", b"text/html, text/event-stream", 5),  # htmx 4, of any page
        ("/", b"text/html,*/*;q=0.8", 5),
    ],
)
async def test_only_what_asks_for_streams_waits_at_the_door(path: str, accept: bytes, inside: int) -> None:
    site = Site()
    communicators = await ask(site, 5, path=path, accept=accept)
    await eventually(lambda: site.asked + waiting(module.door()) == 5, "everybody is inside or waits")
    assert site.asked == inside
    site.go.set()
    for communicator in communicators:
        assert (await communicator.receive_output(5))["status"] == 200
    await leave(communicators)


@pytest.mark.parametrize(
    ("sent", "status", "type"),
    [
        ([], b"503", b"application/problem+json"),
        ([(b"sec-fetch-mode", b"cors")], b"200", b"text/event-stream"),
        ([(b"User-Agent", b"Mozilla/5.0")], b"200", b"text/event-stream"),
    ],
)
async def test_one_too_many_in_a_line_is_told_so_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[bytes, bytes]], status: bytes, type: bytes
) -> None:
    monkeypatch.setattr(module, "LINE", 1)
    site = Site()
    communicators = await ask(site, 3)
    await eventually(lambda: waiting(module.door()) == 1, "the line is full")
    (refused,) = await ask(site, 1, headers=sent)
    start = await refused.receive_output(5)
    headers = dict(start["headers"])
    assert (str(start["status"]).encode(), headers[b"content-type"]) == (status, type)
    body = (await refused.receive_output(5))["body"]
    assert (b"livefeed-refused" in body) is (status == b"200")
    assert (b"retry-after" in headers) is (status == b"503")
    await refused.wait(5)
    site.go.set()
    for communicator in communicators:
        await communicator.receive_output(5)
    await leave(communicators)


async def test_who_is_told_at_the_door_may_read_it_from_an_allowed_origin(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.LIVEFEED_ALLOWED_ORIGINS = ["https://app.example.com"]
    monkeypatch.setattr(module, "LINE", 1)
    site = Site()
    communicators = await ask(site, 3)
    await eventually(lambda: waiting(module.door()) == 1, "the line is full")
    sent = [(b"origin", b"https://app.example.com"), (b"sec-fetch-mode", b"cors")]
    (refused,) = await ask(site, 1, headers=sent)
    headers = dict((await refused.receive_output(5))["headers"])
    assert headers[b"access-control-allow-origin"] == b"https://app.example.com"
    assert headers[b"access-control-allow-credentials"] == b"true"
    assert b"Origin" in headers[b"vary"]
    await refused.receive_output(5)
    await refused.wait(5)
    site.go.set()
    for communicator in communicators:
        await communicator.receive_output(5)
    await leave(communicators)


async def test_each_address_has_its_line_as_trusted_proxies_report_it(settings: Any) -> None:
    settings.LIVEFEED_TRUSTED_PROXIES = 1
    site = Site()
    flood = await ask(site, 5, headers=[(b"x-forwarded-for", b"192.0.2.66")])
    await eventually(lambda: waiting(module.door()) == 3, "three wait")
    other = await ask(site, 1, headers=[(b"x-forwarded-for", b"192.0.2.66, 192.0.2.7")])
    assert set(module.door()._lines) == {"192.0.2.66", "192.0.2.7"}
    site.go.set()
    for communicator in [*flood, *other]:
        await communicator.receive_output(5)
    await leave([*flood, *other])


async def test_on_a_site_without_our_urls_requests_pass_as_they_are(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_html"
    site = Site()
    communicators = await ask(site, 3, path="/livefeed/", accept=b"*/*")
    await eventually(lambda: site.asked == 3, "all are inside")
    site.go.set()
    for communicator in communicators:
        await communicator.receive_output(5)
    await leave(communicators)
