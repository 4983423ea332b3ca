import os

from django.core.asgi import get_asgi_application

import livefeed.asgi

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.rights_site.settings")

application = livefeed.asgi.wrap(get_asgi_application())
