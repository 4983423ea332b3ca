"""``path("livefeed/", include("livefeed.urls"))``: one URL serves streams, pages of history and snapshots; another one
the module, for the pages of sites whose static files are elsewhere."""

from django.urls import path

from .script import script
from .views import stream

app_name = "livefeed"

urlpatterns = [path("", stream, name="stream"), path("livefeed.js", script, name="script")]
