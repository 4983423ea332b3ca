"""The demo as an ASGI application: `daphne project.asgi:application`, or any other ASGI server."""

import os

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

import livefeed.asgi

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_asgi_application()
if settings.DEBUG:
    # runserver serves the static files by itself; a plain `daphne` or `uvicorn` leaves them to us.
    application = ASGIStaticFilesHandler(application)
application = livefeed.asgi.wrap(application)
