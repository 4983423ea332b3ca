"""Django's own Content-Security-Policy (6.0 on), as its documentation sets it up, around the demo site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from project import settings as demo
from tests.e2e.pages import Reader
from tests.e2e.servers import blog_post, serve, site_env

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

OURS = "project.middleware.content_security_policy"
DJANGOS = "django.middleware.csp.ContentSecurityPolicyMiddleware"
NONCE = "<CSP_NONCE_SENTINEL>"  # django.utils.csp.CSP.NONCE; the settings travel as JSON
REMEMBER = """window.stopped = [];
document.addEventListener('securitypolicyviolation', ({ blockedURI }) => stopped.push(blockedURI));"""

POLICIES = {
    "self": {"default-src": ["'self'"]},
    "self and nonce": {"default-src": ["'self'"], "script-src": ["'self'", NONCE], "style-src": ["'self'", NONCE]},
    "nonce and strict-dynamic": {
        "default-src": ["'self'"],
        "script-src": [NONCE, "'strict-dynamic'"],
        "style-src": [NONCE],
    },
}


def settings_with(policy: dict[str, list[str]]) -> dict[str, object]:
    [templates] = demo.TEMPLATES
    processors = [*templates["OPTIONS"]["context_processors"], "django.template.context_processors.csp"]
    return {
        "MIDDLEWARE": [DJANGOS if name == OURS else name for name in demo.MIDDLEWARE],
        "TEMPLATES": [
            templates
            | {"DIRS": [str(path) for path in templates["DIRS"]], "OPTIONS": {"context_processors": processors}}
        ],
        "SECURE_CSP": policy,
    }


@pytest.mark.parametrize("name", POLICIES)
def test_two_tabs_are_live_under_djangos_own_policy_and_nothing_is_stopped(
    sqlite_url: str, tmp_path: Path, window: Callable[..., Page], name: str
) -> None:
    settings = settings_with(POLICIES[name])
    with serve("daphne", tmp_path, database_url=sqlite_url, settings=settings) as site:
        first = window("about:blank")
        second = first.context.new_page()
        readers = []
        for page in (first, second):
            page.add_init_script(REMEMBER)
            answer = page.goto(site.url)
            assert answer
            written = answer.headers["content-security-policy"]
            assert NONCE not in written
            assert ("'nonce-" in written) is ("nonce" in name)
            readers.append(Reader(page).ready())
        blog_post("Under a policy", env=site_env(database_url=sqlite_url, settings=settings))
        for reader in readers:
            reader.sees("Under a policy")
            stopped = reader.page.evaluate("stopped")  # of the demo's own files too, which have no nonce
            assert [url for url in stopped if "livefeed" in url or not url.startswith(site.url)] == []
