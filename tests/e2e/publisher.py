"""A process that publishes what a test tells it to, with a site's settings in its environment.

The test's side is :class:`Publisher`. The process reads one call per line, as JSON, and answers when it is done.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import django

from tests.processes import ROOT, environment

LIMIT = 60.0
#: Events in one transaction.
BATCH = 50


class Publisher:
    """The process, as an async context manager; each method comes back when the process has done it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._process: asyncio.subprocess.Process | None = None

    async def publish(self, topic: str, *ns: int, size: int = 0) -> None:
        """Publish events ``{"n": n}``, each with that many bytes more."""
        await self._call("publish", topic, list(ns), size)

    async def fleeting(self, topic: str, n: int) -> None:
        """Publish an event that nobody stores: only the layer brings it to a reader."""
        await self._call("fleeting", topic, n)

    async def prune(self, keep: int) -> None:
        """Remove all but the newest events of each topic."""
        await self._call("prune", keep)

    async def _call(self, name: str, *arguments: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        async with asyncio.timeout(LIMIT):
            answer = await self._process.stdout.readline()
        assert answer == b"done\n", f"{name} failed: {answer!r}"

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.e2e.publisher",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(self._env),
            cwd=ROOT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


# -- the process ------------------------------------------------------------------------------------------------------


def publish(topic: str, ns: list[int], size: int) -> None:
    from django.db import transaction

    import livefeed

    for start in range(0, len(ns), BATCH):
        with transaction.atomic():
            for n in ns[start : start + BATCH]:
                livefeed.publish(topic, {"n": n, **({"text": "." * size} if size else {})}, type="tick")


def fleeting(topic: str, n: int) -> None:
    import livefeed

    livefeed.publish(topic, {"n": n}, type="typing", store=False)


def prune(keep: int) -> None:
    from django.conf import settings
    from django.core.management import call_command

    settings.LIVEFEED_RETENTION_EVENTS = keep
    call_command("livefeed_prune", stdout=sys.stderr)


CALLS: dict[str, Any] = {"publish": publish, "fleeting": fleeting, "prune": prune}


def main() -> None:
    django.setup()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        CALLS[name](*arguments)
        print("done", flush=True)


if __name__ == "__main__":
    main()
