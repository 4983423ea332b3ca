"""The demo's own middleware."""

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

POLICY = "; ".join(
    [
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Allow pages to load from this site only: no inline script, no inline style, nothing from elsewhere."""
    if iscoroutinefunction(get_response):

        async def async_middleware(request: HttpRequest) -> HttpResponseBase:
            answer: Awaitable[HttpResponseBase] = get_response(request)
            return _restrict(await answer)

        return async_middleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = get_response(request)
        return _restrict(response)

    return middleware


def _restrict(response: HttpResponseBase) -> HttpResponseBase:
    # Django's own debug pages (404 and 500) carry inline styles and scripts.
    if not (settings.DEBUG and response.status_code in {404, 500}):
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response
