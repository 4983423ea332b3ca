"""Tabs of Chromium over its own protocol: to hide and freeze one, or to let its process crash.

Playwright keeps every page of its own visible and awake.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Literal

from tests.e2e.engines import LIMIT, ScriptError, call
from tests.processes import poll

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class RawTabs:
    """A window whose tabs share their cookies and workers, and nothing with others."""

    def __init__(self, browser: Browser) -> None:
        self._session = browser.new_browser_cdp_session()
        self._answers: dict[tuple[str, int], Any] = {}
        self._numbers = itertools.count(1)
        self._session.on("Target.receivedMessageFromTarget", self._received)
        self._context = self._session.send("Target.createBrowserContext")["browserContextId"]

    def tab(self, url: str) -> RawTab:
        """Open a page in a new tab, before those that are open."""
        target = self._session.send("Target.createTarget", {"url": url, "browserContextId": self._context})["targetId"]
        attached = self._session.send("Target.attachToTarget", {"targetId": target, "flatten": False})
        tab = RawTab(self, target, attached["sessionId"])
        poll(lambda: tab.has_loaded(url), limit=LIMIT, what=f"{url} is loaded")
        return tab

    def close(self) -> None:
        self._session.send("Target.disposeBrowserContext", {"browserContextId": self._context})

    def tell(self, session: str, method: str, **params: Any) -> int:
        """Send a command to a tab without waiting for an answer."""
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": params})
        self._session.send("Target.sendMessageToTarget", {"sessionId": session, "message": message})
        return number

    def ask(self, session: str, method: str, **params: Any) -> Any:
        number = self.tell(session, method, **params)
        while (session, number) not in self._answers:
            self._session.send("Browser.getVersion")  # lets what has come be received
        answer = self._answers.pop((session, number))
        if "error" in answer:
            raise RuntimeError(f"{method} of Chromium failed: {answer['error']['message']}")
        return answer["result"]

    def activate(self, target: str) -> None:
        self._session.send("Target.activateTarget", {"targetId": target})

    def _received(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._answers[event["sessionId"], message["id"]] = message


class RawTab:
    def __init__(self, tabs: RawTabs, target: str, session: str) -> None:
        self._tabs = tabs
        self._target = target
        self._session = session

    def goto(self, url: str) -> None:
        self._tabs.ask(self._session, "Page.navigate", url=url)

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        result = self._tabs.ask(
            self._session,
            "Runtime.evaluate",
            expression=call(expression, argument),
            awaitPromise=True,
            returnByValue=True,
        )
        if details := result.get("exceptionDetails"):
            raise ScriptError(details.get("exception", details).get("description", details["text"]))
        return json.loads(result["result"]["value"])

    def has_loaded(self, url: str) -> bool:
        return bool(
            self.evaluate("url => location.href === new URL(url).href && document.readyState === 'complete'", url)
        )

    def show(self) -> None:
        """Bring the tab before the others, which are hidden then."""
        self._tabs.activate(self._target)

    def become(self, state: Literal["frozen", "active"]) -> None:
        """Freeze the tab as Chromium does to save power, or wake it."""
        self._tabs.ask(self._session, "Page.setWebLifecycleState", state=state)

    def crash(self) -> None:
        """Let the tab's process die."""
        self._tabs.tell(self._session, "Page.crash")

    def close(self) -> None:
        self._tabs.ask(self._session, "Page.close")
