"""A server that loads the site before it forks, as `gunicorn --preload` does: `python -m tests.e2e.preload PORT`.

The parent imports the application and publishes; two children serve it with uvicorn on the parent's socket.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import uvicorn
from django.core.asgi import get_asgi_application

WORKERS = 2


def main(port: int) -> None:
    get_asgi_application()
    from django.db import connections

    from livefeed import publish
    from project.asgi import application

    publish("blog.entry", {"n": -1}, type="tick")
    connections.close_all()
    with socket.create_server(("127.0.0.1", port)) as listener:
        children = []
        for _ in range(WORKERS):
            child = os.fork()
            if not child:
                uvicorn.Server(uvicorn.Config(application, ws="none")).run(sockets=[listener])
                return
            children.append(child)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(child, signal.SIGTERM) for child in children])
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
