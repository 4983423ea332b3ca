"""The shipped module from the site's own origin, for a SharedWorker: browsers start one from nowhere else.

A page whose static files are on another origin names this URL in ``worker``; the page itself still loads the module
from there. A worker lives under the policy that its own file came with, and not under the page's.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from django.contrib.auth.decorators import login_not_required
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static
from django.urls import reverse
from django.views.decorators.http import condition, require_safe

from .origins import own_origin

FILE = Path(__file__).parent / "static" / "livefeed" / "livefeed.js"
#: The worker talks to the endpoint beside it, and needs nothing else.
POLICY = "default-src 'none'; connect-src 'self'"
FOR_EVER = "public, max-age=31536000, immutable"


def worker_url(request: HttpRequest) -> str:
    """Return where a page has to start its worker from, "" where the static files are of the page's own origin."""
    try:
        place = urlsplit(static("livefeed/livefeed.js"))
    except ValueError:  # of a manifest without it: the page has no script either
        return ""
    if not place.netloc or f"{place.scheme or request.scheme}://{place.netloc}" == own_origin(request):
        return ""
    return f"{reverse('livefeed:script')}?v={version()}"


def version() -> str:
    """Return what tells this version of the file from all others."""
    return _digest(FILE.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _digest(changed_at: int) -> str:
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]


@non_atomic_requests
@login_not_required
@require_safe
@condition(etag_func=lambda request: f'"{version()}"')
def script(request: HttpRequest) -> HttpResponse:
    """Answer with the module; under the URL that names its version it may be kept for ever."""
    named = request.GET.get("v") == version()
    headers = {
        "Cache-Control": FOR_EVER if named else "public, no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return HttpResponse(FILE.read_bytes(), content_type="text/javascript; charset=utf-8", headers=headers)
