"""The package as people get it: built, installed into a new environment, and set up as the README says."""

from __future__ import annotations

import sys
import venv
import zipfile
from pathlib import Path

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


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)])
    (path,) = directory.glob("*.whl")
    return path


def test_the_wheel_contains_what_the_app_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [part for part in PARTS if not any(name.startswith(part) for name in names)] == []
    assert any(name.startswith("livefeed/locale/") and name.endswith(".mo") for name in names)
    strangers = [name for name in names if not name.startswith(("livefeed/", "django_livefeed-"))]
    assert strangers == []


async def test_the_readme_s_quickstart_leads_to_a_live_page(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    constraint = tmp_path / "constraint.txt"
    constraint.write_text(f"django-livefeed @ {wheel.as_uri()}\n")
    env: dict[str, str | None] = {
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(tmp_path / "venv"),
        "PIP_CONSTRAINT": str(constraint),
        "DJANGO_SETTINGS_MODULE": None,
        "PYTHONPATH": None,
    }
    reader = Follower(home, env)
    for step in steps(README.read_text()):
        reader.follow(step)

    manage = reader.directory / "manage.py"
    run([str(binaries / "python"), str(manage), "check", "--fail-level", "ERROR"], env=env, cwd=reader.directory)
    port = free_port()
    (application,) = reader.directory.glob("*/asgi.py")
    command = [
        str(binaries / "daphne"),
        "-b",
        "127.0.0.1",
        "-p",
        str(port),
        f"{application.parent.name}.asgi:application",
    ]
    daphne = Process(
        "daphne", command, log=tmp_path / "daphne.log", ready=lambda: accepts(port), env=env, cwd=reader.directory
    )
    with daphne:
        stream = EventStream(f"http://127.0.0.1:{port}", ["news.article"])
        async with stream:
            await stream.opened()
            code = "from news.models import Article; Article.objects.create(title='Hello from a shell')"
            run([str(binaries / "python"), str(manage), "shell", "--command", code], env=env, cwd=reader.directory)
            await stream.until(lambda: stream.events, what="the event has come")
        assert stream.events[0].type == "created"
        assert stream.events[0].data["title"] == "Hello from a shell"
        page = run(["curl", "--silent", "--fail", f"http://127.0.0.1:{port}/"], env=env)
        assert "<live-feed" in page
        assert "Hello from a shell" in page
