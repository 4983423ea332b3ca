"""The settings of the site. DATABASE_URL and REDIS_URL say where its data is; LIVEFEED_TEST_SETTINGS changes some."""

import json
import os

import dj_database_url

SECRET_KEY = "for the table of rights only"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "tests.rights_site.urls"
ASGI_APPLICATION = "tests.rights_site.asgi.application"
INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rest_framework",
    "rest_framework.authtoken",
    "livefeed",
    "tests.rights_site",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": dict(dj_database_url.parse(os.environ["DATABASE_URL"]))}
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL",
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [os.environ["REDIS_URL"]]},
    }
}

# Everything is written down: nothing of it may be a secret.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "DEBUG"},
}

ALLOWED_ORIGIN = "https://app.example.com"
LIVEFEED_ALLOWED_ORIGINS = [ALLOWED_ORIGIN]
LIVEFEED_AUTHENTICATION = [
    "livefeed.authentication.token",
    "tests.rights_site.authenticators.by_key",
    "rest_framework.authentication.TokenAuthentication",
    "tests.rights_site.authenticators.SessionOfRestFramework",
    "livefeed.authentication.session",
]

# Nobody is sent away for coming often, and nobody is looked at again unless somebody says so.
LIVEFEED_MAX_CONNECTIONS_PER_USER = 0
LIVEFEED_MAX_CONNECTIONS_PER_SESSION = 0
LIVEFEED_MAX_CONNECTIONS_PER_ADDRESS = 0
LIVEFEED_CONNECTS_PER_MINUTE = 0
LIVEFEED_RECHECK_INTERVAL = 3600.0
LIVEFEED_LEASE_SECONDS = 3600.0

globals().update(json.loads(os.environ.get("LIVEFEED_TEST_SETTINGS", "{}")))
