"""Settings of the demo site.

Without any environment variable the site runs on SQLite and the in-memory Channels layer, for one machine and one
person. The variables below are all that it takes to run it on PostgreSQL or MariaDB and Redis:

DEBUG                 `0` turns it off (then SECRET_KEY is required). Default: on.
SECRET_KEY            Django's secret key.
ALLOWED_HOSTS         host names, separated by commas, besides localhost, 127.0.0.1 and [::1].
CSRF_TRUSTED_ORIGINS  origins with their scheme, separated by commas, for a site behind a proxy with TLS.
DATABASE_URL          such as postgres://user:password@host/name (needs dj-database-url). Default: SQLite.
REDIS_URL             such as redis://host:6379/0 (needs channels-redis). Default: the in-memory layer.
TIME_ZONE             default: UTC.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def _words(name: str) -> list[str]:
    """Return the parts of a comma-separated environment variable."""
    return [part for part in os.environ.get(name, "").replace(",", " ").split() if part]


def _require(module: str, *, variable: str, install: str) -> None:
    """Raise a readable error where `variable` is set and the package that it needs is missing."""
    if find_spec(module) is None:
        raise ImproperlyConfigured(f"{variable} is set, which needs the package {install}. Run: pip install {install}")


DEBUG = os.environ.get("DEBUG", "1").strip().lower() not in {"", "0", "false", "no", "off"}

SECRET_KEY = os.environ.get("SECRET_KEY", "")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured("SECRET_KEY is not set. With DEBUG=0 the demo needs one: SECRET_KEY=<random text>.")
    SECRET_KEY = "demo-only-everybody-can-read-this-key-never-use-it-on-a-real-site"

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *_words("ALLOWED_HOSTS")]
CSRF_TRUSTED_ORIGINS = _words("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "daphne",  # before staticfiles: it replaces runserver by one that can hold streams open
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "livefeed",
    "project.blog",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "project.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
WSGI_APPLICATION = "project.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "project.blog.context.site",
            ],
        },
    },
]


def _database() -> dict[str, Any]:
    """Return the settings of the one database, from DATABASE_URL where it is set."""
    database: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}
    if url := os.environ.get("DATABASE_URL"):
        _require("dj_database_url", variable="DATABASE_URL", install="dj-database-url")
        import dj_database_url

        database = dict(dj_database_url.parse(url))
    if database["ENGINE"] == "django.db.backends.sqlite3":
        # A transaction that begins as a reader and then writes fails at once where another process wrote in between;
        # one that begins as a writer waits for its turn, up to `timeout` seconds. With the write-ahead log, readers
        # and the one writer do not wait for each other.
        database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL",
        }
    return database


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if redis_url := os.environ.get("REDIS_URL"):
    _require("channels_redis", variable="REDIS_URL", install="channels-redis")
    CHANNEL_LAYERS: dict[str, Any] = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [redis_url]},
        },
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "blog:home"
LOGOUT_REDIRECT_URL = "blog:home"

LANGUAGE_CODE = "en"
TIME_ZONE = os.environ.get("TIME_ZONE", "UTC")
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = BASE_DIR / "staticfiles"
