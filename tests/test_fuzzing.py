"""Hostile input: the cases that fuzzing found are kept, and its properties hold for more of them.

``make fuzz CASES=10000000`` runs as many as one likes, guided by coverage; here is what takes a few seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzing import runs, site
from tests.fuzzing.mutation import mutated
from tests.fuzzing.reference import Dispatched, parsed
from tests.fuzzing.targets import TARGETS

KEPT = [(name, line) for name in TARGETS for line in (runs.CORPUS / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def served(db: None) -> Iterator[None]:
    with site.serving():
        yield


@pytest.mark.parametrize(("name", "line"), KEPT, ids=[f"{name}: {json.loads(line)['why']}" for name, line in KEPT])
@pytest.mark.usefixtures("served")
def test_what_was_found_is_found_no_more(name: str, line: str) -> None:
    TARGETS[name].check(json.loads(line)["case"])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("served")
def test_any_case_that_is_made_holds(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=100, suppress_health_check=[*HealthCheck])
    @given(st.randoms(use_true_random=False))
    def check(random: Random) -> None:
        target.check(runs.plain(target.make(random)))

    check()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("served")
def test_any_case_that_is_a_kept_one_changed_holds(name: str) -> None:
    found = runs.first_failure(TARGETS[name], runs.corpus(name), 300, seed="tests")
    assert found is None, runs.told(name, found[1], found[2])


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The examples of WHATWG HTML 9.2.6.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", ""), ("message", "test", "")]),
        # The rest of the section.
        (b"\xef\xbb\xbfdata: 1\r\rdata: 2\r\n\r\n", [("message", "1", ""), ("message", "2", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n", []),
        (b"id: a\0b\nid: 7\ndata: 1\n\nid: 8\0\ndata: 2\n\n", [("message", "1", "7"), ("message", "2", "7")]),
        (b"event: a\n\ndata: 1\n\n", [("message", "1", "")]),
        (b"event: a\nevent: b\ndata: 1\n\n", [("b", "1", "")]),
        (b"event:\ndata: 1\n\n", [("message", "1", "")]),
        (b"id: 3\n\ndata: 1\n\n", [("message", "1", "3")]),
        (b"Data: 1\n data: 1\ndata : 1\n\n", []),
        ("data: a\u2028b\x0bc\x85\n\n".encode(), [("message", "a\u2028b\x0bc\x85", "")]),
        (b"data: \xff\xf0\x9f\n\n", [("message", "\ufffd\ufffd", "")]),
    ],
)
def test_the_reference_parser_does_what_the_standard_says(stream: bytes, events: list[tuple[str, str, str]]) -> None:
    wanted = [Dispatched(*event, topic="") for event in events]
    assert parsed(stream).events == wanted
    assert parsed(stream, range(len(stream))).events == wanted


@pytest.mark.parametrize(
    ("line", "retry"), [("retry: 10", 10), ("retry:010", 10), ("retry: 1.5", None), ("retry", None)]
)
def test_the_reference_parser_reads_the_time_to_come_back(line: str, retry: int | None) -> None:
    assert parsed(f"{line}\n".encode()).retry == retry


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_seed_makes_the_same_cases_and_they_are_plain_json(name: str) -> None:
    first, second = (TARGETS[name].make(Random(7)) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert json.dumps(mutated(first, second, Random(8))) == json.dumps(mutated(first, second, Random(8)))
