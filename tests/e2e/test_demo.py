"""The main job on real input: what one browser saves, other browsers show; on Daphne and SQLite, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.pages import LIMIT, Editor, Reader
from tests.e2e.servers import Server, serve
from tests.e2e.wire import Wire

pytestmark = pytest.mark.browser

RecordProperty = Callable[[str, object], None]


@pytest.fixture
def site(sqlite_url: str, tmp_path: Path) -> Iterator[Server]:
    with serve("daphne", tmp_path, database_url=sqlite_url) as server:
        yield server


def test_an_entry_saved_in_the_admin_appears_changes_and_goes_in_two_other_windows(
    site: Server, window: Callable, screenshots: Path, record_property: RecordProperty
) -> None:
    readers = [Reader(window(site.url)).ready(), Reader(window(site.url)).ready()]
    before = readers[0].titles()
    assert before == readers[1].titles()
    assert before
    editor = Editor(window(site.url), site.url).sign_in("editor", "livefeed")

    pressed = editor.add("The lighthouse is lit")
    for number, reader in enumerate(readers, 1):
        reader.sees("The lighthouse is lit", *before[:3])
        latency = reader.seen_at("The lighthouse is lit") - pressed
        record_property(f"from the button to window {number}", f"{latency:.0f} ms")
        reader.picture(screenshots / f"demo-{number}.png")

    editor.change("The lighthouse is lit", to="The lighthouse is dark")
    for reader in readers:
        reader.sees("The lighthouse is dark", *before[:3])

    editor.delete("The lighthouse is dark")
    for reader in readers:
        reader.misses("The lighthouse is dark")
        assert reader.titles() == before


def test_a_tab_that_was_offline_shows_everything_once_and_in_order_when_it_is_back(
    site: Server, window: Callable, screenshots: Path
) -> None:
    with Wire(site.port) as wire:
        online = Reader(window(site.url)).ready()
        offline = Reader(window(wire.url)).ready()
        editor = Editor(window(site.url), site.url).sign_in("editor", "livefeed")
        editor.add("There before")
        offline.sees("There before")

        wire.cut()
        offline.page.wait_for_selector("live-feed:not([state=open])")
        for title in ("First", "Second", "Third", "Fourth"):
            editor.add(title)
        editor.change("Second", to="Second, corrected")
        editor.delete("Third")
        online.sees("Fourth", "Second, corrected", "First", "There before")
        assert offline.titles()[0] == "There before"
        offline.picture(screenshots / "demo-offline.png")

        wire.mend()
        offline.sees("Fourth", "Second, corrected", "First", "There before")
        assert offline.titles() == online.titles()
        assert len(set(offline.titles())) == len(offline.titles())
        offline.picture(screenshots / "demo-back.png")


def test_every_element_follows_what_an_editor_does_and_a_pause_holds_the_list(
    site: Server, window: Callable, screenshots: Path
) -> None:
    reader = Reader(window(site.url)).ready()
    page, before = reader.page, reader.titles()
    count = int(page.locator("live-counter").inner_text())
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("live-feed")).to_have_attribute("state", "paused")

    desk = window(f"{site.url}/login/?next=/desk/")
    desk.fill("[name=username]", "editor")
    desk.fill("[name=password]", "livefeed")
    desk.press("[name=password]", "Enter")
    desk.fill("[name=cm]", "433")
    desk.press("[name=cm]", "Enter")
    expect(page.locator("live-value [data-field=cm]")).to_have_text("433", timeout=LIMIT)
    assert page.locator("meter").evaluate("meter => meter.value") == 433

    desk.fill("[name=title]", "Not for everybody yet")
    desk.fill("[name=text]", "Wait.")
    desk.get_by_role("button", name="Keep as a draft").click()
    drafts = desk.locator("live-feed[render=html] [data-key]")
    expect(drafts.first).to_contain_text("Not for everybody yet", timeout=LIMIT)
    expect(drafts.first).to_contain_text("1 word")

    desk.fill("[name=title]", "The sirens have gone off")
    desk.fill("[name=text]", "Twice.")
    desk.check("[name=pinned]")
    desk.get_by_role("button", name="Publish").click()
    expect(page.locator("live-toasts [data-live-toast]")).to_contain_text("The sirens have gone off", timeout=LIMIT)
    expect(page.locator("live-counter")).to_have_text(str(count + 1), timeout=LIMIT)
    page.screenshot(path=screenshots / "demo-elements.png", animations="disabled")
    assert reader.titles() == before

    page.get_by_role("button", name="Resume").click()
    reader.sees("The sirens have gone off", *before[:2])
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("live-toasts [data-live-toast]")).to_have_count(0)


AXE = "axe.run().then((run) => run.violations.map((v) => [v.id, v.nodes.map((n) => n.html)]))"


@pytest.mark.needs("npm")
def test_axe_finds_nothing_on_any_page_light_or_dark(site: Server, window: Callable, npm: Path) -> None:
    axe = (npm / "axe-core" / "axe.min.js").read_text()
    page = window(f"{site.url}/login/?next=/desk/")

    def look(path: str) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.evaluate(axe)
            assert page.evaluate(AXE) == [], f"{path}, {scheme}"

    look("/login/")
    page.fill("[name=username]", "editor")
    page.fill("[name=password]", "livefeed")
    page.press("[name=password]", "Enter")
    expect(page.locator("live-feed").first).to_have_attribute("state", "open", timeout=LIMIT)
    look("/desk/")
    for path in ("/", "/section/harbour/", "/entry/2/", "/entry/2/edit/", "/notices/"):
        page.goto(site.url + path)
        look(path)
