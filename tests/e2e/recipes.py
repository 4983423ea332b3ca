"""The site that the recipes lead to: that of the quickstart, and what the blocks of docs/recipes/ add to it, served."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.e2e.readme import README, Follower, Step, steps
from tests.e2e.watched import Watcher
from tests.npm import MODULES, PACKAGES
from tests.processes import ROOT, Process, accepts, free_port

RECIPES = ROOT / "docs" / "recipes"
#: The quickstart's, for which test_quickstart.py has a registry: here livefeed is installed already.
PIP = re.compile(r"^python -m pip .*\n", re.MULTILINE)
NPM = re.compile(r"^npm install (.*)\n", re.MULTILINE)
PACKAGE = re.compile(r"(?P<name>@?[^@\s]+)@(?P<version>\S+)")


class Reader(Follower):
    """Somebody who follows the recipes, and has the npm packages already: those that package.json pins."""

    def __init__(self, directory: Path) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        super().__init__(directory, {"PATH": path, "DJANGO_SETTINGS_MODULE": None})

    def read(self, page: Path, replacing: Mapping[str, str] | None = None) -> None:
        """Follow a page; what the mapping names stands there, and something else in the test."""
        text = page.read_text()
        for old, new in (replacing or {}).items():
            if old not in text:
                raise ValueError(f"{page.name} does not say {old!r}; the tests rely on it.")
            text = text.replace(old, new)
        for step in steps(text):
            self.follow(step)

    def follow(self, step: Step) -> None:
        if step.verb == "run":
            for packages in NPM.findall(step.text):
                self._install(packages.split())
            step = Step(step.verb, step.path, NPM.sub("", PIP.sub("", step.text)))
        super().follow(step)

    def _install(self, packages: list[str]) -> None:
        modules = self.directory / "node_modules"
        modules.mkdir(exist_ok=True)
        for package in packages:
            name, directory = pinned(package)
            link = modules / name
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)  # htmx.org of another version
            link.symlink_to(directory)
        (modules / ".bin").unlink(missing_ok=True)
        (modules / ".bin").symlink_to(MODULES / ".bin")


def pinned(package: str) -> tuple[str, Path]:
    """Return the name of a package such as `htmx.org@2.0.11`, and where it is: under a name of ours, maybe."""
    match = PACKAGE.fullmatch(package)
    pins = json.loads(PACKAGES.read_text())["devDependencies"]
    for name, version in pins.items():
        if match and (package == f"{name}@{version}" or version == f"npm:{package}"):
            return match["name"], MODULES / name
    raise ValueError(f"{package} is not what package.json pins. Write the version there and here alike.")


class Application(ThreadingHTTPServer):
    """What serves the page of another origin: files, and nothing of livefeed's."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(directory)))
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class Site:
    """The site of the recipes, as `runserver` serves it, and the application on another origin beside it."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        reader = Reader(directory)
        reader.read(README)
        self.application = Application(reader.directory / "app")
        origins = {"https://www.example.com": self.url, "https://app.example.com": self.application.url}
        for page in sorted(RECIPES.glob("*.md")):
            reader.read(page, origins if page.stem == "other-origin" else {})
        self.directory = reader.directory
        self.env = {**reader.env, "DJANGO_SETTINGS_MODULE": "recipes_settings"}
        (self.directory / "recipes_settings.py").write_text(SETTINGS)
        self.server = Process(
            "runserver",
            [sys.executable, "manage.py", "runserver", "--noreload", str(self.port)],
            log=directory / "runserver.log",
            ready=lambda: accepts(self.port),
            env=self.env,
            cwd=self.directory,
        )
        self.watcher = Watcher(self.server, self.url)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.application)
            stack.enter_context(self.server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, title: str) -> int:
        key: int = self._articles(f"create(title={title!r}).pk")
        return key

    def change(self, key: int, title: str) -> None:
        self._article(key, f"article.title = {title!r}; article.save()")

    def delete(self, key: int) -> None:
        self._article(key, "article.delete()")

    def clear(self) -> None:
        self._articles("all().delete()[0]")

    def _article(self, key: int, code: str) -> None:
        self.watcher.run(f"from news.models import Article\narticle = Article.objects.get(pk={key})\n{code}")

    def _articles(self, call: str) -> Any:
        return self.watcher.run(f"from news.models import Article\nanswer = Article.objects.{call}")


SETTINGS = """\
from mysite.settings import *

ASGI_APPLICATION = "tests.e2e.recipes_site.application"
"""
