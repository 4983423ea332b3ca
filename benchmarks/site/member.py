"""What one writes with Channels alone: each stream is a member of the group, with a channel of its own."""

import asyncio

from channels.layers import get_channel_layer
from django.http import HttpRequest, StreamingHttpResponse


async def _events():
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add("news", channel)
    yield b": hello\n\n"
    try:
        while True:
            message = await layer.receive(channel)
            yield b"data: " + message["body"] + b"\n\n"
    finally:
        await asyncio.shield(layer.group_discard("news", channel))


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer with the stream of the one group."""
    return StreamingHttpResponse(_events(), content_type="text/event-stream", headers={"Cache-Control": "no-store"})
