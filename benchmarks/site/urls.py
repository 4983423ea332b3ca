"""The streams, each under the path that its users have it at."""

from django.conf import settings
from django.urls import include, path

if settings.KIND == "livefeed":
    urlpatterns = [path("livefeed/", include("livefeed.urls"))]
elif settings.KIND == "eventstream":
    import django_eventstream

    urlpatterns = [path("events/", include(django_eventstream.urls), {"channels": ["news"]})]
elif settings.KIND == "member":
    from .member import stream

    urlpatterns = [path("stream/", stream)]
else:
    urlpatterns = []
