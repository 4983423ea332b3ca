"""The settings of the benchmarked site, by its environment.

BENCH_KIND       livefeed, eventstream (django-eventstream), member (a Channels group member per stream), or plain
BENCH_DATABASE   the path of a SQLite file, or the port of a PostgreSQL that trusts everybody
BENCH_REDIS      the port of a Redis
BENCH_LAYER      memory, redis or pubsub
BENCH_PUBLIC     0: streams are for those who are signed in
BENCH_STORAGE    1: django-eventstream stores its events in the database
BENCH_EXTERNAL   1: django-eventstream hears of events through Redis, from other processes
BENCH_SETTINGS   further settings, as JSON
"""

import json
import os

KIND = os.environ.get("BENCH_KIND", "livefeed")
DATABASE = os.environ.get("BENCH_DATABASE", ":memory:")
REDIS = os.environ.get("BENCH_REDIS", "")
LAYER = os.environ.get("BENCH_LAYER", "memory")

SECRET_KEY = "of a benchmark that listens on the loopback address only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.site.urls"
ASGI_APPLICATION = "benchmarks.site.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

OF_KIND = {"livefeed": ["livefeed"], "eventstream": ["django_eventstream"], "member": [], "plain": []}[KIND]
INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    *OF_KIND,
    "benchmarks.site",
]
# Those of "django-admin startproject".
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
SILENCED_SYSTEM_CHECKS = ["livefeed.W001"]

if DATABASE.isdigit():
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": DATABASE,
            "USER": "postgres",
            "NAME": os.environ.get("BENCH_DATABASE_NAME", "postgres"),
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": DATABASE,
            "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"},
        }
    }

_HOSTS = {"CONFIG": {"hosts": [f"redis://127.0.0.1:{REDIS}/0"]}}
CHANNEL_LAYERS = {
    "default": {
        "memory": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
        "redis": {"BACKEND": "channels_redis.core.RedisChannelLayer", **_HOSTS},
        "pubsub": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", **_HOSTS},
    }[LAYER]
}

if os.environ.get("BENCH_STORAGE") == "1":
    EVENTSTREAM_STORAGE_CLASS = "django_eventstream.storage.DjangoModelStorage"
if os.environ.get("BENCH_PUBLIC") == "0" and KIND == "eventstream":
    EVENTSTREAM_CHANNELMANAGER_CLASS = "benchmarks.site.eventstream.SignedIn"
if os.environ.get("BENCH_EXTERNAL") == "1":
    EVENTSTREAM_REDIS = {"host": "127.0.0.1", "port": int(REDIS), "db": 0}

# One client comes thousands of times, from one address.
LIVEFEED_MAX_CONNECTIONS = 0
LIVEFEED_MAX_CONNECTIONS_PER_USER = 0
LIVEFEED_MAX_CONNECTIONS_PER_SESSION = 0
LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 0
LIVEFEED_CONNECTS_PER_MINUTE = 0

globals().update(json.loads(os.environ.get("BENCH_SETTINGS", "{}")))
