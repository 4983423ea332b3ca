"""The three browser engines behind one small face: open a tab, evaluate in it, close it.

A tab is asked as Playwright's `Page` is (`goto`, `go_back`, `evaluate`, `close`), so that what waits for a page serves
all three; Chromium's tabs are such pages. What else Playwright can do is Chromium's alone: Playwright drives builds of
its own of the other two, and these here are what people have.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: Seconds that a command may take; what a page waits for (`staged_page.LIMIT`) is less.
LIMIT = 40.0


class Tab(Protocol):
    """One tab of a browser."""

    def goto(self, url: str) -> Any:
        """Load a page, and wait until it is loaded."""

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        """Return the value of an expression, awaited if it is a promise, and called with `argument` if a function."""

    def go_back(self, *, wait_until: Literal["commit"]) -> Any:
        """Go one page back, which the browser may have kept as it was."""

    def close(self) -> None:
        """Close the tab as a person does: the page hears of it."""


class Engine(Protocol):
    """One browser, with the cookies, the workers and the locks that its tabs share."""

    name: str

    def tab(self, url: str) -> Tab:
        """Open a page in a new tab."""

    def close_tabs(self) -> None:
        """Close all tabs that are open."""


class ScriptError(Exception):
    """What a page's script threw."""


def call(expression: str, argument: Any) -> str:
    """Return an expression that has the value of `expression` as Playwright would give it, as a promise of JSON."""
    return (
        f"(async () => {{ const found = ({expression}); "
        f"const value = await (typeof found === 'function' ? found({json.dumps(argument)}) : found); "
        "return JSON.stringify(value ?? null); })()"
    )


class Chromium:
    """Debian's Chromium, driven by Playwright."""

    name = "chromium"

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._context = browser.new_context()

    def tab(self, url: str) -> Page:
        page = self._context.new_page()
        page.goto(url)
        return page

    def close_tabs(self) -> None:
        self._context.close()
        self._context = self._browser.new_context()


def in_every_engine() -> pytest.MarkDecorator:
    """Run tests in Chromium, and where there is time in the others too."""
    params = [
        pytest.param("chromium", marks=pytest.mark.browser),
        pytest.param("firefox", marks=pytest.mark.needs("firefox", "time")),
        pytest.param("webkit", marks=pytest.mark.needs("webkit", "time")),
    ]
    return pytest.mark.parametrize("started", params, indirect=True, scope="module")
