"""Make users who are signed in: `python -m tests.e2e.sign_in NUMBER`, with the demo's settings in the environment.

Prints a JSON list of `{"user": <pk>, "session": <the value of the session cookie>}`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import django


def main(number: int) -> list[dict[str, Any]]:
    django.setup()
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import transaction

    signed_in = []
    with transaction.atomic():
        for count in range(number):
            user = get_user_model()(username=f"reader-{count}")
            user.set_unusable_password()
            user.save()
            session = SessionStore()
            session[SESSION_KEY] = str(user.pk)
            session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
            session[HASH_SESSION_KEY] = user.get_session_auth_hash()
            session.save()
            signed_in.append({"user": user.pk, "session": session.session_key})
    return signed_in


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
