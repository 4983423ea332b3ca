"""The benchmarks' own instruments count right. The benchmarks themselves are run by hand: ``make bench``."""

from __future__ import annotations

import pytest

from benchmarks.bench import Result, Table
from benchmarks.environment import build_native
from benchmarks.fan_out import fan_out
from benchmarks.load import Load
from benchmarks.measures import Measure, at_least, at_most
from benchmarks.peers import C_WRITER
from benchmarks.report import write
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


def test_a_report_says_what_was_reached(tmp_path) -> None:
    result = Result("speed", "How fast?", [Table("Speed", ["µs"], {"livefeed": [Measure.of([2, 1, 3])]})])
    result.verdicts = [at_least(2, "speed", "a snail", 3.0), at_most(1, "cost", "a snail", 1.5)]
    page = write([result], tmp_path, "make bench").read_text()
    assert "| livefeed | 2.00 (1.00 to 3.00) |" in page
    assert "| speed | a snail | at least 2 × | 3.00 × | reached |" in page
    assert "| cost | a snail | at most 1 × | 1.50 × | **not reached** |" in page
    assert '"reached": false' in (tmp_path / "results.json").read_text()
