"""The settings of the tests. LIVEFEED_TEST_DATABASE is the URL of another database than a SQLite file."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

SECRET_KEY = "tests only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
ASGI_APPLICATION = "tests.asgi.application"
STATIC_URL = "/static/"

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework.authtoken",
    "livefeed",
    "tests.testapp",
    "news",  # of the documentation's examples: tests/news
]
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# A file, not ":memory:": every thread and process needs a connection of its own, as in real life.
_FOLDER = Path(tempfile.mkdtemp(prefix="livefeed-tests-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": _FOLDER / "site.sqlite3",
    "OPTIONS": {"timeout": 20, "init_command": "PRAGMA synchronous=OFF"},
}


def _sqlite(name: str) -> dict[str, object]:
    return {**_SQLITE, "NAME": _FOLDER / f"{name}.sqlite3", "TEST": {"NAME": _FOLDER / f"test-{name}.sqlite3"}}


if url := os.environ.get("LIVEFEED_TEST_DATABASE"):
    import dj_database_url

    DATABASES = {"default": dict(dj_database_url.parse(url)), "other": _sqlite("other")}
    if "postgresql" in DATABASES["default"]["ENGINE"]:
        # No test pulls the plug, so none has to wait for the disk. A site must not do this: see docs/deploying.md.
        DATABASES["default"]["OPTIONS"] = {"options": "-c synchronous_commit=off"}
else:
    DATABASES = {"default": _sqlite("default"), "other": _sqlite("other")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASE_ROUTERS = ["tests.testapp.routers.OtherRouter"]

# The tests are one client that comes very often.
LIVEFEED_CONNECTS_PER_MINUTE = 0
