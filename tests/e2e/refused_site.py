"""The demo as the tests of refused clients serve it: `uvicorn tests.e2e.refused_site:application`.

It is watched, has two feeds more, and takes the pause of a refused client from LIVEFEED_TEST_PAUSE (two numbers of
milliseconds), so that no test waits half a minute.
"""

from __future__ import annotations

import json
import os

from livefeed import LiveFeed, register
from project.asgi import application as site
from tests.e2e.watched import Watched

if pause := os.environ.get("LIVEFEED_TEST_PAUSE"):
    from livefeed import refusing  # not before the site is set up

    refusing.REFUSED_RETRY = tuple(json.loads(pause))


@register
class ArticleFeed(LiveFeed):
    name = "news.article"
    public = True


@register
class HeadlineFeed(LiveFeed):
    name = "headline"
    public = True
    event_names = False  # no "event:" line, and a str goes out as it is


application = Watched(site)
