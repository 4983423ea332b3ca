"""The tools of these tests, tested: what they claim about a server has to be theirs to claim."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e import firefox
from tests.e2e.client import Block, EventStream, Parser
from tests.e2e.wire import Wire
from tests.processes import ROOT, environment, free_port

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
RETRY = b"retry: 10\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def server(*answers: Callable[[asyncio.StreamWriter], object]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer the n-th connection with the n-th of `answers`; yield the port and the requests so far."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        answers[len(requests) - 1](writer)
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], requests


def end(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(HEAD + chunk(body) + b"0\r\n\r\n")
    writer.write_eof()


def break_off(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(HEAD + chunk(body))
    writer.write_eof()


def go_on(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(HEAD + chunk(body))


def texts(blocks: list[Block]) -> list[tuple[str, str, str]]:
    return [(block.type, block.text, block.id) for block in blocks]


def run_pytest(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    changed = environment({"LIVEFEED_REQUIRE": None, "PYTEST_ADDOPTS": None, **env})
    return subprocess.run(command, env=changed, cwd=ROOT, capture_output=True, text=True, check=False)


def pytest_without_postgres(**env: str) -> subprocess.CompletedProcess[str]:
    """Run tests that need PostgreSQL where nobody answers."""
    nobody = f"postgres://postgres@127.0.0.1:{free_port()}/postgres"
    return run_pytest("tests/e2e/test_idle.py", LIVEFEED_TEST_POSTGRES=nobody, **env)


def test_what_the_machine_lacks_is_left_out_and_told() -> None:
    done = pytest_without_postgres()
    assert done.returncode == 0
    assert "left out: 2 tests, because no PostgreSQL at postgres://postgres@127.0.0.1:" in done.stdout
    assert "to run: start PostgreSQL and set LIVEFEED_TEST_POSTGRES=" in done.stdout


@pytest.mark.parametrize("required", ["all", "redis,postgres"])
def test_what_is_required_and_missing_fails(required: str) -> None:
    done = pytest_without_postgres(LIVEFEED_REQUIRE=required)
    assert done.returncode == 1
    assert "LIVEFEED_REQUIRE asks for postgres, but no PostgreSQL at" in done.stdout


@pytest.mark.parametrize(("required", "code"), [("", 0), ("all", 1)])
def test_a_test_skipped_for_a_reason_of_its_own_passes_unless_all_are_required(
    tmp_path: Path, required: str, code: int
) -> None:
    test = tmp_path / "test_skipped.py"
    test.write_text("import pytest\n\ndef test_nothing() -> None:\n    pytest.skip('not today')\n")
    done = run_pytest("-p", "tests.conftest", str(test), LIVEFEED_REQUIRE=required)
    assert "left out: 1 test, for a reason of its own" in done.stdout
    assert done.returncode == code


def test_a_stream_cut_at_every_byte_is_read_the_same() -> None:
    data = (
        b': hello\nretry: 2500\n\nid: 1\nevent: created\ndata: {"a":\ndata: 1}\n\nid: 2\ndata: \xc3\xa9\r\n\r\nid: 3\n'
    )
    expected = [("created", '{"a":\n1}', "1"), ("message", "é", "2")]
    for cut in range(len(data)):
        parser = Parser()
        assert texts(parser.feed(data[:cut]) + parser.feed(data[cut:])) == expected
        assert (parser.comments, parser.retry, parser.last_event_id) == (1, 2.5, "2")


async def test_a_reader_comes_back_with_the_id_of_the_last_whole_event() -> None:
    first = RETRY + b"id: 7\ndata: a\n\nid: 8\ndata: lost"
    answers = [lambda w: break_off(w, first), lambda w: go_on(w, b"data: b\n\n")]
    async with server(*answers) as (port, requests), EventStream(f"http://127.0.0.1:{port}", ["t"]) as stream:
        await stream.until(lambda: len(stream.events) == 2, what="both events have come")
    assert texts(stream.events) == [("message", "a", "7"), ("message", "b", "7")]
    assert stream.ends == ["broken"]
    assert b"last-event-id" not in requests[0].lower()
    assert b"last-event-id: 7\r\n" in requests[1].lower()


async def test_a_clean_end_is_told_from_a_broken_one() -> None:
    answers = [lambda w: end(w, RETRY), lambda w: break_off(w, RETRY), lambda w: go_on(w, RETRY)]
    async with server(*answers) as (port, _), EventStream(f"http://127.0.0.1:{port}", ["t"]) as stream:
        await stream.until(lambda: len(stream.ends) == 2, what="two connections have ended")
    assert stream.ends == ["clean", "broken"]


async def test_a_wire_carries_is_cut_refuses_and_is_mended() -> None:
    answers = [lambda w: go_on(w, RETRY + b"data: a\n\n"), lambda w: go_on(w, b"data: b\n\n")]
    async with server(*answers) as (port, _), AsyncExitStack() as stack:
        wire = stack.enter_context(Wire(port))
        stream = await stack.enter_async_context(EventStream(wire.url, ["t"]))
        await stream.until(lambda: stream.events, what="the first event has come")
        await asyncio.to_thread(wire.cut)
        await stream.until(lambda: stream.ends[-1:] == ["refused"], what="nobody is there")
        await asyncio.to_thread(wire.mend)
        await stream.until(lambda: len(stream.events) == 2, what="the second event has come")
    assert stream.ends[0] == "broken"


async def test_a_stalled_wire_holds_back_what_is_sent_until_it_is_mended() -> None:
    answers = [lambda w: go_on(w, b"data: a\n\n")] * 2
    async with server(*answers) as (port, requests), AsyncExitStack() as stack:
        wire = stack.enter_context(Wire(port))
        await asyncio.to_thread(wire.stall)
        held_back = await stack.enter_async_context(EventStream(wire.url, ["t"]))
        direct = await stack.enter_async_context(EventStream(f"http://127.0.0.1:{port}", ["t"]))
        await direct.until(lambda: direct.events, what="the event has come without the wire")
        assert (len(requests), held_back.events) == (1, [])
        await asyncio.to_thread(wire.mend)
        await held_back.until(lambda: held_back.events, what="the event has come through the wire")


@pytest.mark.needs("firefox", "time")
def test_firefox_opens_a_tab_though_the_one_in_front_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firefox, "OPENING", 4.0)
    with firefox.run_firefox(tmp_path) as browser:
        busy = browser.tab("data:text/html,")
        busy.evaluate("void setTimeout(() => { for (const begun = Date.now(); Date.now() < begun + 60000;); })")
        tab = browser.tab("data:text/html,two")
        assert tab.evaluate("document.body.innerText + ', ' + document.visibilityState") == "two, visible"
        browser.close_tabs()
