"""Every state as one sees it: light, dark, on a phone, from right to left, in forced colours.

The pictures are for looking at (LIVEFEED_TEST_SCREENSHOTS names a directory for them); what can be judged without eyes
is judged here.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.utils.translation import override

from livefeed.texts import feed_texts
from tests.e2e.staged_page import document, feed, item, until
from tests.e2e.staged_site import NO_CONTENT, Answer, Site, retry_after
from tests.e2e.staged_stream import block, cursor

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Window = Callable[..., Page]

pytestmark = [pytest.mark.browser, pytest.mark.needs("npm")]
pytest_plugins = ["tests.e2e.staged_fixtures"]

#: What a request for a stream is answered with, by the state that follows; the others have streams, or ask for none.
ANSWERS: dict[str, Answer | int] = {
    "waiting": retry_after(503, "90"),
    "polling": 501,
    "denied": 404,
    "failed": 400,
    "closed": NO_CONTENT,
}
STATES = ["open", "connecting", "catching-up", "polling", "waiting", "limited", "paused", "denied", "failed", "closed"]
TITLES = {
    "en": ["The lighthouse is lit", "Two yachts adrift, both caught"],
    "ar": ["أُضيئت المنارة", "يختان جرفهما التيار، وأُنقذ كلاهما"],
}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}, "device_scale_factor": 2},
    "right-to-left": {"color_scheme": "light"},
    "forced-colours": {"color_scheme": "dark", "forced_colors": "active"},
}
FRAME = """<link rel="stylesheet" href="/pictures.css"><meta name="color-scheme" content="light dark">"""
STYLE = """
:root { color-scheme: light dark; font-family: sans-serif; background: Canvas; color: CanvasText; }
body { margin: 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem; }
h1 { font-size: 1.2rem; } h2 { font-size: 1rem; margin: 0; }
"""


SAYS = """[...document.querySelectorAll(`#${argument} [data-live-status]`)]
  .some((line) => line.textContent === line.closest('live-feed').getAttribute(`data-text-${argument}`))"""


def case_of(path: str) -> str:
    return parse_qs(urlsplit(path).query)["case"][0]


def texts(language: str) -> str:
    with override(language):
        return " ".join(f'data-text-{name}="{html.escape(text)}"' for name, text in feed_texts().items())


def gallery(language: str) -> str:
    """Return a page with a list in each state, under its name."""
    first, second = TITLES[language]
    lists = []
    for state in STATES:
        shown = feed(
            item(2, first) + item(1, second),
            name=state,
            src=f"/livefeed/?case={state}",
            cursor=cursor(1),
            attributes='limit="4" insert="prepend" share="none"',
            texts=texts(language),
        )
        shown = shown.replace('aria-label="News"', f'aria-label="{state}"')
        lists.append(f'<section><h2 lang="en" dir="ltr">{state}</h2>{shown}</section>')
    direction = "rtl" if language == "ar" else "ltr"
    body = f"<main><h1>livefeed</h1>{''.join(lists)}</main>"
    return document(body, lang=language, direction=direction, head=FRAME)


def serve(site: Site) -> None:
    """Answer so that each list comes to its state."""

    def refuse(handler: BaseHTTPRequestHandler) -> Answer | int | None:
        if handler.headers["Accept"] == "application/json":
            return None
        return ANSWERS.get(case_of(handler.path))

    site.refuse = refuse
    site.crowded = True
    site.endpoints["/pictures.css"] = lambda handler: handler.answer(Answer(200, "text/css", STYLE))


def lead(site: Site, page: Page) -> None:
    """Give the lists that have streams what leads to their state, and wait until all of them say it."""
    with_streams = {"open", "connecting", "catching-up", "limited", "paused"}
    site.wait_until(lambda: {case_of(stream.path) for stream in site.streams} >= with_streams, "five streams")
    for stream in site.streams:
        match case_of(stream.path):
            case "open" | "paused":
                stream.open()
            case "catching-up":
                stream.open(head=cursor(9))
            case "limited":
                refused = {"reason": "limit", "of": "user", "limit": 3, "retry": 60000}
                stream.send("retry: 60000\n" + block("livefeed-refused", refused)).end()
    until(page, "paused.state === 'open'")
    page.evaluate("paused.pause()")
    for state in STATES:
        until(page, "document.getElementById(argument).getAttribute('state') === argument", state)
        until(page, SAYS, state)


@pytest.mark.parametrize("look", LOOKS)
def test_every_state_can_be_seen_and_read(site: Site, window: Window, npm: Path, screenshots: Path, look: str) -> None:
    serve(site)
    language = "ar" if look == "right-to-left" else "en"
    site.pages["/"] = gallery(language)
    page = window(site.url, **LOOKS[look])
    lead(site, page)
    page.screenshot(path=screenshots / f"states-{look}.png", full_page=True, animations="disabled")

    with override(language):
        said = feed_texts()
    for state in STATES:
        status = page.locator(f"#{state} [data-live-status]")
        assert status.is_visible(), state
        assert status.text_content() == said[state]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    page.evaluate((npm / "axe-core" / "axe.min.js").read_text())
    found = page.evaluate("axe.run().then((run) => run.violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))")
    assert found == []
    assert page.evaluate("violations") == []
