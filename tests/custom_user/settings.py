from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.custom_user.urls"
INSTALLED_APPS = [
    "daphne",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "livefeed",
    "tests.custom_user",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
AUTH_USER_MODEL = "custom_user.Member"
AUTHENTICATION_BACKENDS = ["tests.custom_user.backends.MemberBackend"]
DATABASE_ROUTERS: list[str] = []
