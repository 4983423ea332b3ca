"""The text of an event stream, and nothing else: WHATWG HTML, section 9.2 "Server-sent events".

Bytes out, no I/O, no Django. A *frame* is a block without its ``id:`` line, so that one encoding serves readers at
different cursors: the id is put in front of it.
"""

from __future__ import annotations

import re

CONTENT_TYPE = "text/event-stream"
KEEP_ALIVE = b": keep-alive\n\n"

# 9.2.5: a line ends with CRLF, LF or CR. U+2028, VT and FF do not end a line, so str.splitlines() would be wrong.
_LINE_END = re.compile(r"\r\n|\r|\n")


def frame(type: str, data: str) -> bytes:
    """Return the block of one event without an id; type ``"message"`` is the standard's default and needs no line."""
    lines = [] if type == "message" else [f"event: {type}"]
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "\n".join([*lines, "", ""]).encode()


def with_id(cursor: str, frame: bytes, topic: str = "") -> bytes:
    """Put the ``id:`` (and, for connections with several topics, the ``topic:``) in front of a frame."""
    names = f"id: {cursor}\ntopic: {topic}\n" if topic else f"id: {cursor}\n"
    return names.encode() + frame


def with_topic(topic: str, frame: bytes) -> bytes:
    """Put the ``topic:`` in front of a frame: a field of ours, which other clients skip (9.2.6)."""
    return f"topic: {topic}\n".encode() + frame


def retry(milliseconds: int) -> bytes:
    """Return the line that sets the client's reconnection time (9.2.6: digits only, applies at once)."""
    return f"retry: {milliseconds}\n".encode()
