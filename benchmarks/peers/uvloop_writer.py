"""The floor of Python: uvloop, and one ``transport.write`` per stream and event. GET opens a stream, POST publishes."""

import asyncio
import sys

import uvloop

OPENING = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n9\r\n: hello\n\n\r\n"
)
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"
streams: set[asyncio.Transport] = set()


class Connection(asyncio.Protocol):
    """One connection: a stream, or one that publishes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        streams.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET"):
            streams.add(self.transport)
            self.transport.write(OPENING)
            return
        event = b"data: " + data.partition(b"\r\n\r\n")[2] + b"\n\n"
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        for transport in streams:
            transport.write(chunk)
        self.transport.write(DONE)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "0.0.0.0", port, backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
