"""What a database server decides, on each that livefeed supports: overlapping transactions, the history, its plans.

``make test-postgres`` and ``make test-mariadb`` run everything there.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT, environment

SUITES = [
    "tests/backends/test_overlapping.py",
    "tests/backends/test_relaying.py",
    "tests/test_query_plans.py",
    "tests/test_numbering.py",
    "tests/test_history.py",
]

pytestmark = pytest.mark.timeout(300)


def run_suites_on(url: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment({"LIVEFEED_TEST_DATABASE": url, "PYTEST_ADDOPTS": None, "PYTEST_XDIST_WORKER": None}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0


@pytest.mark.needs("postgres")
def test_the_suites_pass_on_postgresql(postgres_url: str) -> None:
    run_suites_on(postgres_url)


@pytest.mark.needs("mariadb")
def test_the_suites_pass_on_mariadb(mariadb_url: str) -> None:
    run_suites_on(mariadb_url)
