"""The module from the site's own origin: for whom it is, how long it is kept, and what its worker may do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import django
import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.http import HttpRequest
from django.template import RequestContext, Template
from django.test import Client, RequestFactory

from livefeed.script import FILE, POLICY, version, worker_url


@pytest.fixture
def elsewhere(settings: Any) -> None:
    settings.STATIC_URL = "https://static.example.com/s/"


def request_of(**headers: str) -> HttpRequest:
    return RequestFactory(headers=headers).get("/")


def test_the_worker_is_the_page_s_own_file_where_that_is_of_its_origin(settings: Any) -> None:
    assert worker_url(request_of()) == ""
    settings.STATIC_URL = "http://testserver/s/"
    assert worker_url(request_of()) == ""
    settings.STATIC_URL = "//testserver/s/"
    assert worker_url(request_of()) == ""


@pytest.mark.usefixtures("elsewhere")
def test_a_site_whose_static_files_are_elsewhere_names_its_own_url_with_the_version() -> None:
    assert worker_url(request_of()) == f"/livefeed/livefeed.js?v={version()}"


def test_another_scheme_is_another_origin(settings: Any) -> None:
    settings.STATIC_URL = "https://testserver/s/"
    assert worker_url(request_of())


def test_a_manifest_without_the_file_is_no_error_of_the_list(settings: Any, tmp_path: Path) -> None:
    settings.STATIC_ROOT = str(tmp_path)
    manifest = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": manifest}}
    assert worker_url(request_of()) == ""


def test_the_file_is_served_as_it_is_with_its_type_and_a_policy_of_its_own(client: Client) -> None:
    response = client.get("/livefeed/livefeed.js")
    assert response.content == FILE.read_bytes()
    assert response["Content-Type"] == "text/javascript; charset=utf-8"
    assert response["Content-Security-Policy"] == POLICY == "default-src 'none'; connect-src 'self'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "Cookie" not in response.get("Vary", "")


def test_a_version_is_kept_for_ever_and_anything_else_is_asked_for_again(client: Client) -> None:
    kept = client.get("/livefeed/livefeed.js", {"v": version()})
    assert kept["Cache-Control"] == "public, max-age=31536000, immutable"
    asked = client.get("/livefeed/livefeed.js", {"v": "before"})
    assert asked["Cache-Control"] == "public, no-cache"
    again = client.get("/livefeed/livefeed.js", headers={"if-none-match": asked["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_it_is_for_everybody_also_where_pages_want_a_login(settings: Any, client: Client) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    assert client.get("/livefeed/livefeed.js").status_code == 200
    assert client.post("/livefeed/livefeed.js").status_code == 405


def test_a_policy_of_the_site_s_own_does_not_take_the_place_of_the_worker_s(settings: Any, client: Client) -> None:
    django_s = "django.middleware.csp.ContentSecurityPolicyMiddleware"  # since 6.0
    settings.MIDDLEWARE = [
        "project.middleware.content_security_policy",
        *([django_s] if django.VERSION >= (6,) else []),
        *settings.MIDDLEWARE,
    ]
    settings.SECURE_CSP = {"default-src": ["'self'"]}
    assert client.get("/livefeed/", {"topic": "plain"})["Content-Security-Policy"].startswith("default-src 'self'")
    assert client.get("/livefeed/livefeed.js")["Content-Security-Policy"] == POLICY


@pytest.mark.django_db
def test_files_that_are_named_by_their_content_are_found_by_their_names(settings: Any, tmp_path: Path) -> None:
    manifest = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": manifest}}
    settings.STATIC_ROOT = str(tmp_path)
    settings.STATIC_URL = "https://static.example.com/"
    call_command("collectstatic", interactive=False, verbosity=0)
    request = request_of()
    request.user = AnonymousUser()
    page = Template('{% load livefeed %}{% livefeed_script %}{% livefeed "testapp.article" %}').render(
        RequestContext(request)
    )
    (name,) = re.findall(r'src="https://static\.example\.com/(livefeed/livefeed\.[0-9a-f]{12}\.js)"', page)
    assert (tmp_path / name).read_bytes() == FILE.read_bytes()
    assert f'worker="/livefeed/livefeed.js?v={version()}"' in page


async def test_it_is_served_under_asgi_too(async_client: Any) -> None:
    assert (await async_client.head("/livefeed/livefeed.js")).status_code == 200
