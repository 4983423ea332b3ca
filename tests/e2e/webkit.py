"""WebKit as Debian has it (WebKitGTK, whose kin Safari is), driven by its WebDriver over plain HTTP, on no screen.

https://www.w3.org/TR/webdriver2/ names the commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx

from tests.e2e.engines import LIMIT, ScriptError, call
from tests.processes import Process, accepts, free_port
from tests.services import find, mini_browser

SCRIPT = """const done = arguments[arguments.length - 1];
EXPRESSION.then((value) => done({ value }), (error) => done({ error: `${error}` }));"""


class WebKit:
    """WebKitGTK's small browser under automation."""

    name = "webkit"

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        options = {"binary": mini_browser(), "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        self._session = ""
        self._session = "/session/" + self.command("POST", "/session", capabilities=wanted)["sessionId"]
        self._first = self._at = self.command("GET", "/window")

    def command(self, method: str, path: str, **body: Any) -> Any:
        answer = self._client.request(method, self._session + path, json=body if method == "POST" else None)
        value = answer.json()["value"]
        if answer.is_error:
            raise RuntimeError(f"{method} {path} of WebKit failed: {value['error']}: {value['message']}")
        return value

    def tab(self, url: str) -> WebKitTab:
        self.at(self._first)
        tab = WebKitTab(self, self.command("POST", "/window/new", type="tab")["handle"])
        tab.goto(url)
        return tab

    def at(self, handle: str) -> None:
        """Let the next commands be for this tab."""
        if self._at != handle:
            self.command("POST", "/window", handle=handle)
            self._at = handle

    def close_tabs(self) -> None:
        for handle in self.command("GET", "/window/handles"):
            if handle != self._first:
                self.close_tab(handle)

    def close_tab(self, handle: str) -> None:
        self.at(handle)
        self.command("DELETE", "/window")
        self._at = ""

    def close(self) -> None:
        self.command("DELETE", "")


class WebKitTab:
    def __init__(self, webkit: WebKit, handle: str) -> None:
        self._webkit = webkit
        self._handle = handle

    def goto(self, url: str) -> None:
        self._webkit.at(self._handle)
        self._webkit.command("POST", "/url", url=url)

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        self._webkit.at(self._handle)
        script = SCRIPT.replace("EXPRESSION", call(expression, argument))
        result = self._webkit.command("POST", "/execute/async", script=script, args=[])
        if "error" in result:
            raise ScriptError(result["error"])
        return json.loads(result["value"])

    def go_back(self, *, wait_until: Literal["commit"]) -> None:
        self._webkit.at(self._handle)
        self._webkit.command("POST", "/back")

    def close(self) -> None:
        self._webkit.close_tab(self._handle)


class Screen(Process):
    """An X server that shows nothing to nobody; it takes a number that is free, and writes it to its log."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            "Xvfb",
            [find("Xvfb") or "Xvfb", "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
            log=directory / "xvfb.log",
            ready=lambda: self.log().strip().isdigit(),
        )

    @property
    def name_for_programs(self) -> str:
        return f":{self.log().strip()}"


@contextmanager
def run_webkit(directory: Path) -> Iterator[WebKit]:
    """Run WebKit as long as the block lasts."""
    port = free_port()
    with Screen(directory) as screen:
        driver = Process(
            "WebKitWebDriver",
            [find("WebKitWebDriver") or "WebKitWebDriver", "-p", str(port)],
            log=directory / "webkit.log",
            ready=lambda: accepts(port),
            env={"DISPLAY": screen.name_for_programs, "HOME": str(directory)},
        )
        with driver, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT) as client:
            webkit = WebKit(client)
            yield webkit
            webkit.close()
