"""Members, who sign in with an e-mail address."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class MemberManager(BaseUserManager["Member"]):
    def create_member(self, email: str, password: str, **fields: Any) -> Member:
        member = self.model(email=email, **fields)
        member.set_password(password)
        member.save()
        return member


class Member(AbstractBaseUser):
    uid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    blocked = models.BooleanField(default=False)
    boards = models.JSONField(default=list)

    objects = MemberManager()

    USERNAME_FIELD = "email"

    class Meta:
        app_label = "custom_user"
