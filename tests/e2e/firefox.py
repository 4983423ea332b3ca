"""Firefox as it is installed, driven over WebDriver BiDi: JSON over a WebSocket that Firefox itself serves.

https://w3c.github.io/webdriver-bidi/ names the commands. There is no geckodriver in Debian, and BiDi needs none.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from websockets.sync.client import ClientConnection, connect

from tests.e2e.engines import LIMIT, ScriptError, call
from tests.processes import Process, free_port
from tests.services import firefox

# Nothing is asked of the network; the rest, Firefox sets itself where it is driven.
PREFERENCES = """
user_pref("services.settings.server", "data:,#nobody/v1");
user_pref("app.normandy.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
"""
LISTENS = "WebDriver BiDi listening on"
#: Seconds that Firefox has to open a tab, and how often it is asked. It answers when the tab that was in front has said
#: that it is hidden, and waits for that with no end; the next tab has another one before it.
OPENING, TRIES = 10.0, 4


class Firefox:
    """A headless Firefox with a profile of its own."""

    name = "firefox"

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.command("session.new", capabilities={})
        (self._first,) = self._contexts()

    def command(self, method: str, *, limit: float = LIMIT, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=limit))
            if answer.get("id") == number:
                break
        if answer["type"] == "error":
            raise RuntimeError(f"{method} of Firefox failed: {answer['error']}: {answer['message']}")
        return answer["result"]

    def tab(self, url: str) -> FirefoxTab:
        tab = FirefoxTab(self, self._new_context())
        tab.goto(url)
        return tab

    def _new_context(self) -> str:
        for attempt in range(1, TRIES + 1):
            try:
                context: str = self.command("browsingContext.create", limit=OPENING, type="tab")["context"]
                return context
            except TimeoutError:
                if attempt == TRIES:
                    raise
        raise AssertionError("the last try returns or raises")

    def close_tabs(self) -> None:
        for context in self._contexts():
            if context != self._first:  # with its last tab, Firefox would end
                self.command("browsingContext.close", context=context)

    def _contexts(self) -> list[str]:
        tree = self.command("browsingContext.getTree", maxDepth=0)
        return [context["context"] for context in tree["contexts"]]


class FirefoxTab:
    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox = firefox
        self._context = context

    def goto(self, url: str) -> None:
        self._firefox.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        target = {"context": self._context}
        result = self._firefox.command(
            "script.evaluate", expression=call(expression, argument), target=target, awaitPromise=True
        )
        if result["type"] == "exception":
            raise ScriptError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    def go_back(self, *, wait_until: Literal["commit"]) -> None:
        self._firefox.command("browsingContext.traverseHistory", context=self._context, delta=-1)

    def close(self) -> None:
        self._firefox.command("browsingContext.close", context=self._context)


@contextmanager
def run_firefox(directory: Path) -> Iterator[Firefox]:
    """Run Firefox as long as the block lasts."""
    port, log, profile = free_port(), directory / "firefox.log", directory / "profile"
    options = ["--profile", str(profile), "--remote-debugging-port", str(port)]
    profile.mkdir()
    (profile / "user.js").write_text(PREFERENCES)
    process = Process(
        "firefox",
        [firefox() or "firefox", "--headless", "--no-remote", *options],
        log=log,
        ready=lambda: log.exists() and LISTENS in log.read_text(errors="replace"),
        env={"HOME": os.environ.get("HOME", str(directory)), "MOZ_CRASHREPORTER_DISABLE": "1"},
    )
    with process, connect(f"ws://127.0.0.1:{port}/session", max_size=None) as socket:
        yield Firefox(socket)
