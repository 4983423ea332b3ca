"""``path("livefeed/", include("livefeed.urls"))``: one URL serves streams, pages of history and snapshots."""

from django.urls import path

from .views import stream

app_name = "livefeed"

urlpatterns = [path("", stream, name="stream")]
