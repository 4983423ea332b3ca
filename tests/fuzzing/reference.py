"""A parser of event streams, written from WHATWG HTML 9.2.5 and 9.2.6 alone, to check livefeed's frames and its parser.

A state machine that takes one byte at a time, and keeps bytes until a line is whole: no regular expression, no
splitting of text, no incremental decoder. So it shares no mistake with `livefeed.testing.streams`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

LF, CR, COLON, SPACE, NUL = 0x0A, 0x0D, 0x3A, 0x20, 0x00
BOM = b"\xef\xbb\xbf"


class Dispatched(NamedTuple):
    """One event as the standard dispatches it, and livefeed's own ``topic`` field of its block."""

    type: str
    data: str
    id: str
    topic: str


class ReferenceParser:
    """Feed it bytes; ``events`` are those dispatched so far, ``fields`` the names of all fields seen."""

    def __init__(self) -> None:
        self.events: list[Dispatched] = []
        self.comments = 0
        self.retry: int | None = None
        self.fields: list[str] = []
        self.last_event_id = ""
        self.blocks = 0  # ended by a blank line, and not empty
        self._line = bytearray()
        self._cr_before = False
        self._first_line = True
        self._lines_in_block = 0
        self._id_buffer = ""
        self._reset_buffers()

    def _reset_buffers(self) -> None:
        self._data_buffer = ""
        self._type_buffer = ""
        self._topic_buffer = ""

    def feed(self, data: bytes) -> None:
        """Take bytes, wherever they were cut."""
        for byte in data:
            if byte == LF and self._cr_before:
                self._cr_before = False  # the second half of a CRLF pair
                continue
            self._cr_before = byte == CR
            if byte in (CR, LF):
                self._end_line()
            else:
                self._line.append(byte)

    @property
    def unfinished(self) -> bool:
        """Whether something waits for its end: 9.2.6 discards it when the stream ends."""
        return bool(self._line) or self._lines_in_block > 0

    def _end_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._first_line:
            self._first_line = False
            if line[:3] == BOM:  # "UTF-8 decode" takes one BOM away, at the very beginning
                line = line[3:]
        if len(line) == 0:
            self._dispatch()
            return
        self._lines_in_block += 1
        colon = line.find(COLON)
        if colon == 0:
            self.comments += 1
        elif colon > 0:
            value = line[colon + 1 :]
            if len(value) > 0 and value[0] == SPACE:
                value = value[1:]
            self._process_field(decoded(line[:colon]), decoded(value))
        else:
            self._process_field(decoded(line), "")

    def _process_field(self, name: str, value: str) -> None:
        self.fields.append(name)
        if name == "event":
            self._type_buffer = value
        elif name == "data":
            self._data_buffer += value
            self._data_buffer += "\n"
        elif name == "id":
            if chr(NUL) not in value:
                self._id_buffer = value
        elif name == "retry":
            if len(value) > 0 and all("0" <= character <= "9" for character in value):
                self.retry = int(value[:18])  # a number that no clock can count to is as good as this
        elif name == "topic":
            self._topic_buffer = value

    def _dispatch(self) -> None:
        if self._lines_in_block:
            self.blocks += 1
            self._lines_in_block = 0
        self.last_event_id = self._id_buffer
        if self._data_buffer == "":
            self._reset_buffers()
            return
        data = self._data_buffer[:-1] if self._data_buffer[-1] == "\n" else self._data_buffer
        kind = self._type_buffer if self._type_buffer != "" else "message"
        self.events.append(Dispatched(kind, data, self.last_event_id, self._topic_buffer))
        self._reset_buffers()


def decoded(line: bytes) -> str:
    """Decode a line as the Encoding Standard does. No sequence of UTF-8 goes beyond CR or LF, so lines stand alone."""
    return line.decode("utf-8", "replace")


def parsed(stream: bytes, cuts: Iterable[int] = ()) -> ReferenceParser:
    """Return a parser that was fed a stream, cut at these positions."""
    parser = ReferenceParser()
    for portion in portions(stream, cuts):
        parser.feed(portion)
    return parser


def portions(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return the stream cut at positions, taken modulo its length; doubled ones make empty portions."""
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]
