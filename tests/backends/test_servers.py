"""What depends on the database, on every database server that livefeed supports: each suite as it is, in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT, environment

SUITES = [
    "tests/test_history.py",
    "tests/test_leases.py",
    "tests/test_publishing.py",
    "tests/test_receivers.py",
    "tests/test_livemodel.py",
    "tests/test_transactions.py",
    "tests/backends/test_overlapping.py",
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
