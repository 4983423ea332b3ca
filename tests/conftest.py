"""What a test needs from the machine, said with a marker, and what was left out, said at the end of the run.

`@pytest.mark.needs("postgres", "redis")` (names: `tests.services.NEEDS`; `@pytest.mark.browser` is short for
`needs("chromium")`). A need that the machine doesn't meet skips the test. With LIVEFEED_REQUIRE=all, or a list such as
LIVEFEED_REQUIRE=postgres,redis, it fails the test instead: a gate may not pass because something wasn't installed. With
"all" a test that is skipped for whatever reason fails the run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from django.test import TransactionTestCase

from tests.npm import install
from tests.services import NEEDS, RedisServer, fresh_mariadb, fresh_postgres

pytest_plugins = ["tests.relay_fixtures"]

#: What lets a test use the database, as pytest-django names it.
DATABASE = {"db", "transactional_db"}
LEFT_OUT = "left out for want of"

# Property tests have no deadline, since the machine may be busy, and leave nothing behind.
hypothesis.settings.register_profile("livefeed", deadline=None, database=None)
hypothesis.settings.load_profile("livefeed")


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "leave out tests that may not use the database: they are the same on every one"
    parser.addoption("--only-database", action="store_true", help=words)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*names): skip without these; any of {', '.join(NEEDS)}")
    config.addinivalue_line("markers", "browser: the same as needs('chromium')")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in _needs(item):
            if name not in NEEDS:
                raise pytest.UsageError(f"{item.nodeid} needs {name!r}, which is none of {', '.join(NEEDS)}.")
    if config.getoption("--only-database"):
        config.hook.pytest_deselected(items=[item for item in items if not _may_use_the_database(item)])
        items[:] = filter(_may_use_the_database, items)


def _may_use_the_database(item: pytest.Item) -> bool:
    """Tell whether pytest-django lets a test use the database."""
    of_django = issubclass(getattr(item, "cls", None) or object, TransactionTestCase)
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return of_django or bool(item.get_closest_marker("django_db")) or not DATABASE.isdisjoint(fixtures)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread waits for long for what it might do next: the tests look whether they are gone."""
    monkeypatch.setattr("livefeed.threads.PATIENCE", 0.1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in _needs(item):
        lack = NEEDS[name].lack()
        if not lack:
            continue
        if _required(name):
            pytest.fail(f"LIVEFEED_REQUIRE asks for {name}, but {lack}.", pytrace=False)
        item.user_properties.append((LEFT_OUT, name))
        pytest.skip(f"needs {name}: {lack}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if _required("all") and terminal and terminal.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _tell_measured(terminalreporter)
    _tell_left_out(terminalreporter)


def _tell_measured(terminal: pytest.TerminalReporter) -> None:
    """Show what tests recorded with `record_property`: numbers worth knowing that are nobody's reason to fail."""
    reports = [report for report in terminal.stats.get("passed", []) if report.user_properties]
    if reports:
        terminal.section("measured")
    for report in reports:
        terminal.write_line(report.nodeid)
        for key, value in report.user_properties:
            terminal.write_line(f"    {key}: {value}")


def _tell_left_out(terminal: pytest.TerminalReporter) -> None:
    skipped = terminal.stats.get("skipped", [])
    if not skipped:
        return
    wanting = Counter(value for report in skipped for key, value in report.user_properties if key == LEFT_OUT)
    others = len(skipped) - wanting.total()
    terminal.section("left out")
    for name, count in sorted(wanting.items()):
        terminal.write_line(f"left out: {_tests(count)}, because {NEEDS[name].lack()}.")
        terminal.write_line(f"    to run: {NEEDS[name].cure}.")
    if others:
        terminal.write_line(f"left out: {_tests(others)}, for a reason of its own (pytest -rs says which).")
    if _required("all"):
        terminal.write_line("LIVEFEED_REQUIRE=all: that is a failure.")


def _needs(item: pytest.Item) -> Iterator[str]:
    for marker in item.iter_markers("needs"):
        yield from marker.args
    if item.get_closest_marker("browser"):
        yield "chromium"


def _required(name: str) -> bool:
    required = os.environ.get("LIVEFEED_REQUIRE", "").split(",")
    return name in required or "all" in required


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


@pytest.fixture(scope="session", autouse=True)
def _tables_are_emptied_quickly() -> None:
    from tests import emptying  # when Django is set up

    emptying.install()


@pytest.fixture(autouse=True)
def _the_relay_works(request: pytest.FixtureRequest) -> None:
    """With LIVEFEED_TEST_RELAY=1 commits are numbered as they are on a site, and not at once as in other tests."""
    if os.environ.get("LIVEFEED_TEST_RELAY"):
        request.getfixturevalue("working_relay")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database of this session's own."""
    with fresh_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """The URL of an empty MariaDB database of this session's own."""
    with fresh_mariadb() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server of this session's own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of this test's own, to stop, kill and start again."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def npm() -> Path:
    """The directory of the npm packages of package.json, as in `npm / "axe-core" / "axe.min.js"`."""
    return install()
