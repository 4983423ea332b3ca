"""What a database server decides, on each that livefeed supports: overlapping transactions, the history, its plans, and
what becomes of a model's changes where a relay numbers them.

``make test-postgres`` and ``make test-mariadb`` run everything there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

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


def run_on(url: str, suites: Sequence[str], **changes: str | None) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suites]
    changes |= {"LIVEFEED_TEST_DATABASE": url, "PYTEST_ADDOPTS": None, "PYTEST_XDIST_WORKER": None}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(changes),
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
    run_on(postgres_url, SUITES)


@pytest.mark.needs("mariadb")
def test_the_suites_pass_on_mariadb(mariadb_url: str) -> None:
    run_on(mariadb_url, SUITES)


@pytest.mark.needs("postgres")
def test_changes_become_the_same_events_where_a_relay_numbers_them_on_postgresql(postgres_url: str) -> None:
    run_on(postgres_url, ["tests/test_receivers.py"], LIVEFEED_TEST_RELAY="1")


@pytest.mark.needs("mariadb")
def test_changes_become_the_same_events_where_a_relay_numbers_them_on_mariadb(mariadb_url: str) -> None:
    run_on(mariadb_url, ["tests/test_receivers.py"], LIVEFEED_TEST_RELAY="1")
