"""What a client is told instead of what it asked for.

Any status but 200 ends a browser's EventSource for good, so a browser that would be refused for a while gets a stream
that says so and when to come back. Everybody else gets a status, and ``application/problem+json``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from http import HTTPStatus

from django.http import HttpResponse, JsonResponse

from . import sse
from .exceptions import LimitReached
from .responses import HEADERS
from .streams import own_block

#: Milliseconds after which a client that was refused is told to come back.
REFUSED_RETRY = (15_000, 30_000)


class Problem(Exception):
    """An answer that is an error: ``application/problem+json`` (RFC 9457)."""

    def __init__(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> HttpResponse:
        """Return it as a response."""
        body = {"type": "about:blank", "title": self.status.phrase, "status": self.status, "detail": self.detail}
        headers = {"Cache-Control": "private, no-store", **self.headers}
        return JsonResponse(body, status=self.status, content_type="application/problem+json", headers=headers)


def limited(limit: LimitReached, headers: Mapping[str, str], *, wants_stream: bool) -> HttpResponse:
    """Tell a client to come back later: a browser that asked for a stream in a stream, everybody else by status."""
    retry = random.randint(*REFUSED_RETRY)
    if wants_stream and _is_browser(headers):
        data = {"reason": limit.reason, "of": limit.of, "limit": limit.limit, "retry": retry}
        body = sse.retry(retry) + own_block("refused", data)
        return HttpResponse(body, content_type=sse.CONTENT_TYPE, headers=HEADERS)
    own = limit.reason in {"limit", "rate"}  # the client's own doing
    status = HTTPStatus.TOO_MANY_REQUESTS if own else HTTPStatus.SERVICE_UNAVAILABLE
    return Problem(status, f"{limit}. Come back later.", Retry_After=str(retry // 1000)).response()


def _is_browser(headers: Mapping[str, str]) -> bool:
    # Browsers leave Sec-Fetch-* out on plain http other than localhost.
    return "sec-fetch-mode" in headers or headers.get("user-agent", "").startswith("Mozilla/")
