"""The package as people get it: built, installed into a new environment, and set up as the README says."""

from __future__ import annotations

import re
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.client import EventStream
from tests.e2e.readme import README, Follower, steps
from tests.processes import ROOT, Process, accepts, free_port, run

pytestmark = [pytest.mark.needs("registry"), pytest.mark.timeout(300)]

PARTS = [
    "livefeed/py.typed",
    "livefeed/static/livefeed/livefeed.js",
    "livefeed/static/livefeed/livefeed.css",
    "livefeed/templates/livefeed/",
    "livefeed/templatetags/livefeed.py",
    "livefeed/migrations/0001_",
    "livefeed/management/commands/livefeed_prune.py",
    "livefeed/locale/",
]


class Site:
    """The site that the quickstart leads to, with an environment of its own."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        self.log = directory / "runserver.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        home, environment, constraint = directory / "home", directory / "venv", directory / "constraint.txt"
        self.interpreter = str(environment / "bin" / "python")
        home.mkdir()
        venv.create(environment, with_pip=True)
        constraint.write_text(f"django-livefeed=={wheel.name.split('-')[1]}\n")
        self.env: dict[str, str | None] = {
            "PATH": f"{environment}/bin:/usr/local/bin:/usr/bin:/bin",
            "VIRTUAL_ENV": str(environment),
            "PIP_FIND_LINKS": str(wheel.parent),
            "PIP_CONSTRAINT": str(constraint),
            "DJANGO_SETTINGS_MODULE": None,
            "PYTHONPATH": None,
        }
        reader = Follower(home, self.env)
        for step in steps(README.read_text()):
            reader.follow(step)
        self.directory = reader.directory

    def python(self, *arguments: str) -> str:
        return run([self.interpreter, *arguments], env=self.env, cwd=self.directory)

    def shell(self, code: str) -> None:
        self.python("manage.py", "shell", "--command", code)

    def runserver(self) -> Process:
        return Process(
            "runserver",
            [self.interpreter, "manage.py", "runserver", str(self.port)],
            log=self.log,
            ready=lambda: accepts(self.port),
            env=self.env,
            cwd=self.directory,
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)])
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("quickstart"), wheel)
    with site.runserver():
        yield site


def test_the_wheel_contains_what_the_app_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [part for part in PARTS if not any(name.startswith(part) for name in names)] == []
    assert any(name.startswith("livefeed/locale/") and name.endswith(".mo") for name in names)
    strangers = [name for name in names if not name.startswith(("livefeed/", "django_livefeed-"))]
    assert strangers == []


def test_the_quickstart_s_site_runs_the_wheel_and_has_nothing_to_complain_of(site: Site, wheel: Path) -> None:
    where = site.python("-c", "import livefeed; print(livefeed.__file__)").strip()
    assert Path(where).is_relative_to(str(site.env["VIRTUAL_ENV"]))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("livefeed/__init__.py") == Path(where).read_bytes()
    site.python("manage.py", "check", "--fail-level", "WARNING")
    site.python("manage.py", "makemigrations", "--check", "--dry-run")


async def test_what_a_shell_saves_arrives_on_an_open_stream(site: Site) -> None:
    async with EventStream(site.url, ["news.article"]) as stream:
        await stream.opened()
        site.shell("from news.models import Article; Article.objects.create(title='Hello from a shell')")
        await stream.until(lambda: stream.events, what="the event has come")
    assert stream.events[0].type == "created"
    assert stream.events[0].data["title"] == "Hello from a shell"


def test_the_page_shows_what_is_there_and_finds_its_script(site: Site) -> None:
    site.shell("from news.models import Article; Article.objects.create(title='Hello from before')")
    page = httpx.get(f"{site.url}/").raise_for_status().text
    assert "<live-feed" in page
    assert "Hello from before" in page
    (script,) = re.findall(r'<script[^>]* src="([^"]+)"', page)
    assert httpx.get(f"{site.url}{script}").raise_for_status().headers["content-type"].startswith("text/javascript")
