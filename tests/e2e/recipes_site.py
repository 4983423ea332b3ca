"""The site of the recipes, watched; a stream that ends is asked for again soon, so that no test waits for seconds."""

from __future__ import annotations

from mysite.asgi import application as site

from livefeed import streams
from tests.e2e.watched import Watched

streams.RETRY = (300, 400)

application = Watched(site)
