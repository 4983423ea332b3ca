"""The benchmarks' own instruments count right. The benchmarks themselves are run by hand: ``make bench``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import measured
from benchmarks.bench import Bench, Result, Table
from benchmarks.docs import PAGE, filled, sizing, tables, verdicts
from benchmarks.environment import build_native
from benchmarks.fan_out import fan_out
from benchmarks.load import Load
from benchmarks.measures import Measure, at_least, at_most
from benchmarks.peers import C_WRITER
from benchmarks.report import kept, write
from benchmarks.services import Services


@pytest.mark.needs("gcc")
def test_the_load_counts_what_arrives_and_what_does_not() -> None:
    build_native()
    with C_WRITER.serve(Services(0, 0)) as server, Load(server, C_WRITER.request()) as load:
        assert load.open(20).streams == 20
        done = fan_out(server, load, None, events=10, rate=0)
        assert (done.arrivals.arrived, done.arrivals.lost, done.arrivals.doubled) == (200, 0, 0)
        assert 0 < done.p50 <= done.p99
        load.open(10)
        assert fan_out(server, load, None, events=2, rate=0).arrivals.arrived == 60
        load.expect(3)
        load.post(2, 0)
        missed = load.wait(silence=0.1)
        assert (missed.arrived, missed.lost) == (60, 30)


def test_a_report_says_what_was_reached(tmp_path: Path) -> None:
    result = Result("speed", "How fast?", [Table("Speed", ["µs"], {"livefeed": [Measure.of([2, 1, 3])]})])
    result.verdicts = [at_least(2, "speed", "a snail", 3.0), at_most(1, "cost", "a snail", 1.5)]
    page = write([result], tmp_path, "make bench").read_text()
    assert "| livefeed | 2.00 (1.00 to 3.00) |" in page
    assert "| speed | a snail | at least 2 × | 3.00 × | reached |" in page
    assert "| cost | a snail | at most 1 × | 1.50 × | **not reached** |" in page
    assert kept(tmp_path)["speed"].verdicts == result.verdicts


def test_a_run_can_be_read_again_and_fills_its_places_in_the_docs(tmp_path: Path) -> None:
    table = Table("Speed", ["µs", "made by"], {"livefeed": [Measure.of([2, 1, 3]), "hand"]})
    result = Result("speed", "How fast?", [table], [at_most(1, "a save() in autocommit, time", "a snail", 1.5)])
    write([result], tmp_path, "make bench")
    assert kept(tmp_path) == {"speed": result}
    page = "before\n<!-- verdicts -->\nstale\n<!-- end -->\nbetween\n<!-- tables -->\n<!-- end -->\nafter\n"
    found = kept(tmp_path)
    made = filled(page, {"verdicts": lambda: verdicts(found), "tables": lambda: tables(found, [])})
    assert "stale" not in made
    assert made.startswith("before\n<!-- verdicts -->\n| what | against |")
    assert "* **A save() in autocommit.** One statement more" in made
    assert "| livefeed | 2.00 (1.00 to 3.00) | hand |\n<!-- end -->\nafter\n" in made
    again = {"verdicts": lambda: verdicts(found), "tables": lambda: tables(found, [])}
    assert filled(made, again) == made


def test_the_docs_have_a_place_for_all_that_a_run_finds() -> None:
    places = re.findall(r"<!-- (\w+) -->", PAGE.read_text())
    assert [place for place in places if place != "end"] == ["run", "verdicts", "tables", "costs", "sizing"]


def test_a_size_is_calculated_from_the_figures_of_a_run() -> None:
    memory = Table("", ["KiB"], {"livefeed, uvicorn": [Measure.of([32.0])]})
    cost = [Table("", ["CPU per delivery, µs"], {"livefeed, uvicorn": [Measure.of([each])]}) for each in (10.0, 2.0)]
    connect = Table("", ["CPU of the server per connection, ms"], {"livefeed, uvicorn": [Measure.of([4.0])]})
    found = {
        name: Result(name, "", made)
        for name, made in (("memory", [memory]), ("fanout", cost), ("connecting", [connect]))
    }
    rows = list(sizing(found))
    assert list(sizing({}))[2].startswith("| 10³ | 1 | – | – cores |")
    assert rows[3].startswith("| 10⁴ | 1 | 312 MiB | 0.10 cores | 0.40 to 2.00 cores | 40.0 s of each process' core |")


def test_a_scenario_or_a_peer_that_fails_is_noted_and_the_next_begins() -> None:
    bench, result = Bench(Services(0, 0), True, 1), Result("speed", "How fast?")

    def fails() -> None:
        raise RuntimeError("out of snails")

    assert not bench.attempt(C_WRITER, fails, result)
    assert bench.attempt(C_WRITER, lambda: None, result)
    assert result.notes == ["C writer failed: RuntimeError('out of snails')"]
    failed = measured("no_such_scenario", bench)
    assert "no_such_scenario" in failed.failure
