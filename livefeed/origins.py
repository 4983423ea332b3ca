"""Which other sites' pages may read our streams: none, but for those that ``LIVEFEED_ALLOWED_ORIGINS`` names exactly.

A browser sends our cookies along with requests that a foreign page makes it send. Such a request is refused before
anything is asked of it: it would count against the user's connections, although the foreign page could not read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from django.http import HttpRequest

from .conf import settings

#: Seconds that a browser may keep the answer to a preflight.
PREFLIGHT_SECONDS = 600
#: What a page of another origin may send: where to go on, and who it is.
REQUEST_HEADERS = "Authorization, Last-Event-ID, Cache-Control"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\sA-Z,*?#@]+")
_OURS = frozenset({"same-origin", "none"})


def is_foreign(request: HttpRequest) -> bool:
    """Tell whether a page of an origin that is not allowed made a browser send this request.

    ``Sec-Fetch-Site`` (Fetch Metadata, section 2.2) can't be set by a page, and tells a sibling subdomain
    (``same-site``) from ourselves; browsers leave it out on plain http. ``Origin`` (RFC 6454, section 7) comes with
    every cross-origin fetch and EventSource. What is no browser sends neither.
    """
    origin = request.headers.get("Origin")
    if _is_allowed(origin):
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in _OURS
    return origin is not None and origin != own_origin(request)


def _is_allowed(origin: str | None) -> bool:
    allowed = settings.ALLOWED_ORIGINS
    return isinstance(allowed, (list, tuple)) and origin in allowed  # in a string, a part of it would do


def own_origin(request: HttpRequest) -> str:
    """Return the origin under which this request reached us."""
    return f"{request.scheme}://{request.get_host()}"


def headers(asked: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that let the page of an allowed origin read an answer (Fetch, section 3.3.3), by those of the
    request, whose names may be in any case."""
    origin = asked.get("Origin")
    found = {"Vary": "Origin"}
    if origin and _is_allowed(origin):
        found |= {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        if "Access-Control-Request-Method" in asked:
            found |= {
                "Access-Control-Allow-Methods": "GET, HEAD",
                "Access-Control-Allow-Headers": REQUEST_HEADERS,
                "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
            }
    return found


def origin_problem(origin: object) -> str:
    """Return what is wrong with an entry of ``LIVEFEED_ALLOWED_ORIGINS``, or ""."""
    if not (isinstance(origin, str) and _ORIGIN.fullmatch(origin)):
        return f'{origin!r} is no origin. Write scheme://host[:port] in lower case: "https://app.example.com".'
    parts = urlsplit(origin)
    if (parts.scheme, parts.netloc.rpartition(":")[2]) in {("https", "443"), ("http", "80")}:
        return f"{origin!r} names the default port, which browsers leave out. Write {parts.scheme}://{parts.hostname}."
    return ""
