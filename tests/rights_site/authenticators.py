"""Two ways to say who one is that are the site's own."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from rest_framework.authentication import SessionAuthentication

from livefeed.exceptions import AuthenticationFailed

from .models import ApiKey

#: A key for which the authenticator fails, as with a bug.
BUG = "key-that-meets-a-bug"


def by_key(request: HttpRequest) -> Any:
    key = request.headers.get("X-Api-Key")
    if key is None:
        return None
    if key == BUG:
        raise RuntimeError(f"on purpose, with {key}")
    known = ApiKey.objects.filter(key=key, owner__is_active=True).select_related("owner").first()
    if known is None:
        raise AuthenticationFailed("There is no such key.", 'Api-Key realm="rights"')
    return known.owner


class SessionOfRestFramework(SessionAuthentication):
    """REST framework's sessions, for those who ask for them: livefeed's own are in the list as well."""

    def authenticate(self, request: Any) -> Any:
        return super().authenticate(request) if request.headers.get("X-Client") == "rest" else None
