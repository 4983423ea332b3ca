"""The demo's pages as a person meets them: what a reader sees, and what an editor does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

TITLES = "live-feed [data-live-list] [data-field=title]"
LIMIT = 30_000  # milliseconds

# Remember when each text was first seen under a feed, by the clock that Python reads too.
WATCH = """() => {
  window.seenAt = {};
  const look = () => {
    for (const node of document.querySelectorAll('live-feed [data-field=title]'))
      window.seenAt[node.textContent] ??= Date.now();
  };
  look();
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""

TOPMOST = """([where, wanted]) => {
  const nodes = document.querySelectorAll(where);
  return wanted.every((title, place) => nodes[place]?.textContent === title);
}"""


@dataclass(frozen=True)
class Reader:
    """A page of the live blog that somebody reads."""

    page: Page

    def ready(self) -> Reader:
        """Wait until the page is live, and note from now on when each entry appears."""
        expect(self.page.locator("live-feed").first).to_have_attribute("state", "open", timeout=LIMIT)
        self.page.evaluate(WATCH)
        return self

    def titles(self) -> list[str]:
        return self.page.locator(TITLES).all_inner_texts()

    def sees(self, *titles: str) -> None:
        """Wait until these are the topmost titles, in this order."""
        self.page.wait_for_function(TOPMOST, arg=[TITLES, list(titles)], timeout=LIMIT)

    def misses(self, title: str) -> None:
        """Wait until the title is nowhere."""
        expect(self.page.locator(TITLES).filter(has_text=title)).to_have_count(0, timeout=LIMIT)

    def picture(self, path: Path) -> None:
        """Take a screenshot of the page at rest."""
        self.page.screenshot(path=path, animations="disabled")

    def seen_at(self, title: str) -> float:
        """Return when the title was first seen, in milliseconds of the wall clock."""
        moment: float = self.page.evaluate("title => window.seenAt[title]", title)
        return moment


@dataclass(frozen=True)
class Editor:
    """Somebody signed in to the Django admin."""

    page: Page
    site: str

    def sign_in(self, name: str, password: str) -> Editor:
        self.page.goto(f"{self.site}/admin/login/?next=/admin/")
        self.page.fill("[name=username]", name)
        self.page.fill("[name=password]", password)
        self.page.click("[type=submit]")
        expect(self.page.locator("#user-tools")).to_be_visible()
        return self

    def add(self, title: str, text: str = "Written in the admin.") -> float:
        """Publish an entry; return when the button was pressed, in milliseconds of the wall clock."""
        self.page.goto(f"{self.site}/admin/blog/entry/add/")
        self.page.fill("[name=title]", title)
        self.page.fill("[name=text]", text)
        self.page.select_option("[name=section]", index=1)
        self.page.select_option("[name=status]", "published")
        return self._save()

    def change(self, title: str, *, to: str) -> float:
        """Give an entry a new title; return when the button was pressed."""
        self._open(title)
        self.page.fill("[name=title]", to)
        return self._save()

    def delete(self, title: str) -> None:
        self._open(title)
        self.page.click(".deletelink")
        self.page.click("#content [type=submit]")
        expect(self.page.locator(".messagelist .success")).to_be_visible()

    def _open(self, title: str) -> None:
        self.page.goto(f"{self.site}/admin/blog/entry/")
        self.page.get_by_role("link", name=title, exact=True).click()

    def _save(self) -> float:
        pressed: float = self.page.evaluate("Date.now()")
        self.page.click("[name=_save]")
        expect(self.page.locator(".messagelist .success")).to_be_visible()
        return pressed
