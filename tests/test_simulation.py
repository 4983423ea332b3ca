"""The simulation: many seeds break no promise, bugs on purpose are found, and a seed tells the same story each time.

LIVEFEED_SIMULATION_SEEDS is how many seeds are run here; ``make simulation SEEDS=1000000`` runs as many as one likes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.processes import ROOT, environment
from tests.simulation.bugs import BUGS

SEEDS = int(os.environ.get("LIVEFEED_SIMULATION_SEEDS", "100"))
#: Seeds within which each bug is found.
ENOUGH = 100

#: Seconds after which a run hangs: many times what one takes on a machine that does nothing else.
LIMIT = 600 + 10 * SEEDS

pytestmark = pytest.mark.timeout(3 * LIMIT)


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulation as one does by hand, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=environment({"LIVEFEED_TEST_DATABASE": None, "PYTHONHASHSEED": None}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_no_seed_breaks_a_promise() -> None:
    done = simulate("--seeds", str(SEEDS), "--jobs", "1")
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
    print(done.stdout)
    assert f"{SEEDS} seeds in" in done.stdout
    deliveries, faults = (int(n) for n in re.findall(r"(\d+) (?:deliveries|faults)", done.stdout))
    assert deliveries > SEEDS
    assert faults > SEEDS


@pytest.mark.needs("time")
def test_every_bug_that_is_introduced_on_purpose_is_found() -> None:
    done = simulate("--bugs", "--seeds", str(ENOUGH))
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5_000:]}"
    assert done.stdout.count("found by seed") == len(BUGS)


def test_a_seed_that_breaks_a_promise_tells_its_story_and_how_to_see_it_again() -> None:
    first, second = (simulate("--seeds", "5", "--jobs", "1", "--bug", "newest-event-is-taken-twice") for _ in range(2))
    assert first.returncode == 1
    assert first.stdout == second.stdout
    (again,) = re.findall(r"python -m tests\.simulation (--seed .*)", first.stdout)
    third = simulate(*again.split())
    assert third.returncode == 1
    assert third.stdout == first.stdout


def test_a_seed_is_the_same_run_every_time() -> None:
    runs = [simulate("--first", "41", "--seeds", "15", "--jobs", jobs) for jobs in ("1", "2")]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stdout[-5_000:]
    first, second = (run.stdout.splitlines()[-1] for run in runs)
    assert first.startswith("fingerprint ")
    assert first == second


def test_a_seed_tells_its_story_if_it_is_asked_to() -> None:
    done = simulate("--seed", "7", "--story")
    assert done.returncode == 0, done.stdout[-5_000:]
    assert "the weather clears up" in done.stdout


def test_a_bug_that_nobody_knows_is_refused_with_the_names_of_those_that_are() -> None:
    done = simulate("--bug", "no-such-bug")
    assert done.returncode == 2
    assert "hand-over-is-off-by-one" in done.stderr
