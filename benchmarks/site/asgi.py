"""The ASGI application: Django's, and in front of it ``POST /publish``, which costs every kind the same.

``python -m uvicorn benchmarks.site.asgi:application``
"""

import asyncio
import json
import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
django_application = get_asgi_application()

from django.conf import settings  # noqa: E402

if settings.KIND == "livefeed":
    import livefeed.asgi
    from livefeed import apublish

    django_application = livefeed.asgi.wrap(django_application)

    async def publish(body: bytes) -> None:
        await apublish("news", json.loads(body))

elif settings.KIND == "eventstream":
    from django_eventstream import send_event

    async def publish(body: bytes) -> None:
        await asyncio.to_thread(send_event, "news", "message", json.loads(body))

else:
    from channels.layers import get_channel_layer

    async def publish(body: bytes) -> None:
        await get_channel_layer().group_send("news", {"type": "event", "body": body})


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve Django, and publish what is posted."""
    if scope["type"] == "http" and scope["path"] == "/publish":
        await publish((await receive())["body"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    elif scope["type"] == "http":
        await django_application(scope, receive, send)
