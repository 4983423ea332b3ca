"""sse-starlette, as its documentation shows it: a queue per stream, and ``EventSourceResponse``."""

import asyncio

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

queues: set[asyncio.Queue] = set()


async def events():
    queue: asyncio.Queue = asyncio.Queue()
    queues.add(queue)
    try:
        yield {"comment": "hello"}
        while True:
            yield {"data": await queue.get()}
    finally:
        queues.discard(queue)


async def stream(request):
    return EventSourceResponse(events())


async def publish(request):
    body = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(body)
    return Response(status_code=204)


application = Starlette(routes=[Route("/stream", stream), Route("/publish", publish, methods=["POST"])])
