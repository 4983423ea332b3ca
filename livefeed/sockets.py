"""How long the kernel waits for a client that is gone without a word: a phone without a network, a cable that was cut.

What is sent to it, a keep-alive for instance, is never confirmed; by default Linux goes on trying for a quarter of an
hour (tcp(7), tcp_retries2). Its place is taken for as long, so the kernel is told how long a client may be silent.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

#: The option is Linux'; elsewhere the kernel decides.
USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
#: Milliseconds that it may be told at most: 24 days.
MOST = 2**31 - 1


def give_up_after(connection: Any, seconds: float) -> None:
    """Let the kernel end a connection on which nothing was confirmed for so long; 0 leaves that to the kernel.

    ``connection`` is its socket, or what stands for it; what is none is left alone.
    """
    set_option = getattr(connection, "setsockopt", None)
    family = getattr(connection, "family", None)
    if USER_TIMEOUT is not None and seconds and set_option and family in {socket.AF_INET, socket.AF_INET6}:
        with contextlib.suppress(OSError, ValueError):  # the client has left; to uvloop it is a bad value then
            set_option(socket.IPPROTO_TCP, USER_TIMEOUT, min(round(seconds * 1000), MOST))
