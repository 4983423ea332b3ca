"""The fuzzer itself: it finds bugs on purpose, a guided run finds nothing, and what is found can be replayed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fuzzing import site
from tests.fuzzing.__main__ import SHARES
from tests.fuzzing.bugs import BUGS, found_in
from tests.fuzzing.mutation import smaller
from tests.fuzzing.targets import TARGETS
from tests.processes import ROOT, environment

#: Made cases within which each bug is found: the slowest took 1,412.
ENOUGH = 4_000


@pytest.fixture
def served(db: None) -> Iterator[None]:
    with site.serving():
        yield


@pytest.mark.parametrize("name", BUGS)
@pytest.mark.usefixtures("served")
def test_a_bug_on_purpose_is_found(name: str) -> None:
    assert found_in(name, ENOUGH) is not None


@pytest.mark.needs("atheris")
@pytest.mark.timeout(600)
def test_a_run_that_is_guided_by_coverage_finds_nothing() -> None:
    done = fuzz("--cases", "5000", "--jobs", "1", "--target", "view", "--target", "encode")
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
    reached = dict(re.findall(r"^(\w+): \d+ cases .* (\d+) edges reached", done.stdout, re.MULTILINE))
    assert reached.keys() == {"view", "encode"}
    assert all(int(edges) > 20 for edges in reached.values()), "coverage is taken of livefeed"


@pytest.mark.needs("atheris")
@pytest.mark.timeout(600)
def test_a_guided_run_tells_what_it_finds_as_a_line_that_can_be_replayed() -> None:
    bug = "frame-leaves-carriage-returns"
    done = fuzz("--cases", "20000", "--jobs", "1", "--target", "encode", "--bug", bug)
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    case = json.dumps(json.loads(line)["case"])
    again = fuzz("--target", "encode", "--case", case, "--bug", bug)
    assert again.returncode == 1
    assert "Broken" in again.stderr
    assert fuzz("--target", "encode", "--case", case).returncode == 0


def test_a_run_needs_no_coverage() -> None:
    done = fuzz("--blind", "--cases", "500", "--jobs", "1", "--target", "names", "--target", "cursor")
    assert done.returncode == 0, done.stderr
    assert "500 cases" in done.stdout


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer as one does by hand, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzzing", *arguments],
        cwd=ROOT,
        env=environment({"LIVEFEED_TEST_DATABASE": None}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


# -- what the fuzzing stands on ---------------------------------------------------------------------------------------


def test_every_target_has_its_share_of_a_run() -> None:
    assert SHARES.keys() == TARGETS.keys()
    assert sum(SHARES.values()) == 100


def test_what_was_found_is_cut_down_to_what_is_needed_for_it() -> None:
    case = {"text": "a" * 50 + "\r" + "b" * 50, "other": [1, 2, 3], "number": 40}
    assert smaller(case, lambda case: "\r" in case["text"]) == {"text": "\r", "other": [], "number": 0}
