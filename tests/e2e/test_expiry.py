"""An open page outlives the names that were signed for it: where a feed's rule can be asked, it is asked again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.pages import Reader
from tests.e2e.servers import Server, blog_post, site_env

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

EXPIRED = """() => {
  const signed = document.querySelector('live-feed').getAttribute('topic').split('~')[1];
  const digits = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
  const at = [...signed].reduce((value, digit) => value * 62 + digits.indexOf(digit), 0);
  return Date.now() / 1000 > at + 3;
}"""


def test_a_page_whose_signed_names_have_expired_comes_back_after_a_cut(
    window: Callable[..., Page], tmp_path: Path, sqlite_url: str
) -> None:
    settings = {"LIVEFEED_SIGNATURE_SECONDS": 1, "LIVEFEED_RECHECK_INTERVAL": 1}
    env = site_env(database_url=sqlite_url, settings=settings)
    with Server("daphne", tmp_path, env=env) as server:
        page = window(f"{server.url}/")
        reader = Reader(page).ready()
        page.wait_for_function(EXPIRED)
        blog_post("Still open", env=env)
        reader.sees("Still open")  # the re-checks of meanwhile have closed nothing
        port = server.port
    blog_post("While it was away", env=env)
    with Server("daphne", tmp_path, env=env, port=port):
        reader.sees("While it was away", "Still open")
        reader.ready()
