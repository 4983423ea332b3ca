"""Make the site's tables, and signed-in users with a session each: ``python -m benchmarks.site.prepare USERS``.

The session of user number 7 has the key that the cookie ``sessionid=benchmark-session-7`` names.
"""

import os
import sys
from datetime import timedelta

import django

SESSION = "benchmark-session-{}"


def main(users: int) -> None:
    """Prepare the database that the environment names."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    if users:
        sign_in(users)


def sign_in(users: int) -> None:
    """Make users, and a session for each."""
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    User = get_user_model()
    User.objects.bulk_create([User(username=f"reader{i}", password="!") for i in range(users)], batch_size=100)
    made = list(User.objects.order_by("pk"))
    store, expires = SessionStore(), timezone.now() + timedelta(days=1)
    backend = settings.AUTHENTICATION_BACKENDS[0]

    def session(number: int, user) -> Session:
        data = {
            SESSION_KEY: str(user.pk),
            BACKEND_SESSION_KEY: backend,
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }
        key = SESSION.format(number)
        return Session(session_key=key, session_data=store.encode(data), expire_date=expires)

    Session.objects.bulk_create([session(i, user) for i, user in enumerate(made)], batch_size=100)


if __name__ == "__main__":
    main(int(sys.argv[1]))
