"""How members sign in: nothing of it is ModelBackend's."""

from __future__ import annotations

from typing import Any

from .models import Member


class MemberBackend:
    def authenticate(self, request: Any, email: str = "", password: str = "") -> Member | None:
        member = Member.objects.filter(email=email, blocked=False).first()
        return member if member is not None and member.check_password(password) else None

    def get_user(self, key: Any) -> Member | None:
        return Member.objects.filter(pk=key, blocked=False).first()
