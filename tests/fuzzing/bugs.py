"""Bugs on purpose, each of a kind that one could make: fuzzing that does not find them proves nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from django.core import signing
from django.http import HttpRequest
from django.utils.module_loading import import_string

from livefeed import (
    access,
    authentication,
    cursors,
    events,
    origins,
    responses,
    roster,
    sse,
    streams,
    tail,
    topics,
    views,
)
from livefeed.cursors import Cursor, Position, parse_cursor
from livefeed.exceptions import AuthenticationFailed
from livefeed.registry import registry
from livefeed.testing import streams as shipped_streams
from livefeed.testing.streams import EventStreamParser
from livefeed.viewers import Viewer

from . import names, site, tokens
from . import request as request_target
from .runs import first_failure
from .targets import TARGETS

#: What replaces what: (object, name, stand-in).
Patch = tuple[Any, str, Any]


class Bug(NamedTuple):
    """A bug, and the target that has to find it."""

    target: str
    patches: Callable[[], list[Patch]]


BUGS: dict[str, Bug] = {}


def bug(target: str) -> Callable[[Callable[[], list[Patch]]], Callable[[], list[Patch]]]:
    def declare(patches: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
        BUGS[patches.__name__.replace("_", "-")] = Bug(target, patches)
        return patches

    return declare


@contextmanager
def introduced(name: str | None) -> Iterator[None]:
    """Have a bug in livefeed for a while. Raises KeyError for one that is not known."""
    with ExitStack() as stack:
        for target, attribute, stand_in in BUGS[name].patches() if name else ():
            stack.enter_context(patch.object(target, attribute, stand_in))
        yield


def found_in(name: str, most: int) -> tuple[int, Exception] | None:
    """Return the number of the made case that finds a bug, and what is wrong; None where none of so many does.

    The corpus is left out: what it holds was found before.
    """
    target = TARGETS[BUGS[name].target]
    try:
        with introduced(name):
            _forget()
            found = first_failure(target, [], most)
    finally:
        _forget()
    return (found[0], found[2]) if found else None


def _forget() -> None:
    """Let one bug leave nothing behind for the next."""
    names.signed_name.cache_clear()
    tokens.valid.cache_clear()
    site.current().fresh()


# -- what is written --------------------------------------------------------------------------------------------------


def _frame_split_by(split: Callable[[str], list[str]]) -> list[Patch]:
    def frame(type: str, data: str) -> bytes:
        lines = [] if type == "message" else [f"event: {type}"]
        lines += [f"data: {line}" for line in split(data)]
        return "\n".join([*lines, "", ""]).encode()

    return [(sse, "frame", frame)]


@bug("encode")
def frame_splits_lines_as_python_does() -> list[Patch]:
    """At U+2028 and others too, where no client sees a line's end; and not behind the last one."""
    return _frame_split_by(lambda data: data.splitlines() or [""])


@bug("encode")
def frame_leaves_carriage_returns() -> list[Patch]:
    """Text of a user begins a line of the stream."""
    return _frame_split_by(lambda data: data.split("\n"))


@bug("encode")
def frame_strips_lines() -> list[Patch]:
    """White space at the ends is lost."""
    return _frame_split_by(lambda data: [line.strip() for line in re.split("\r\n|\r|\n", data)])


@bug("encode")
def type_may_end_with_a_line_end() -> list[Patch]:
    """The difference between ``$`` and the end of the text."""

    def validate_type(type: object) -> str:
        stripped = type[:-1] if isinstance(type, str) and type.endswith("\n") else type
        original(stripped)
        return str(type)

    original = events.validate_type
    return [(events, "validate_type", validate_type)]


@bug("encode")
def topic_may_end_with_a_line_end() -> list[Patch]:
    """The same for topics, which stand in a line of the stream too."""
    return [(topics, "_NAME", _Loose(r"[A-Za-z0-9._:-]{1,200}$"))]


class _Loose:
    """A pattern whose ``fullmatch`` is ``match``."""

    def __init__(self, pattern: str) -> None:
        self.fullmatch = re.compile(pattern).match


@bug("encode")
def reserved_types_are_published() -> list[Patch]:
    """A site's event could be taken for one of livefeed's own."""
    return [(events, "_OURS", "livefeed-reset")]


@bug("encode")
def nan_is_written() -> list[Patch]:
    """No browser reads it."""

    return [(events._ENCODER, "allow_nan", True)]


@bug("encode")
def data_may_be_as_deep_as_the_stack() -> list[Patch]:
    """What can be written can't be read again in another place."""
    return [(events, "MAX_DEPTH", 100_000)]


@bug("encode")
def size_is_counted_in_characters() -> list[Patch]:
    """Four times as many bytes get through."""
    return [(events, "size_of", lambda text: len(text.encode()) and len(text))]


@bug("encode")
def id_of_one_topic_forgets_the_others() -> list[Patch]:
    """On a connection with several topics."""

    def with_id(cursor: str, frame: bytes, topic: str = "") -> bytes:
        return sse.with_id(cursor.split(".")[0], frame, topic)

    return [(tail, "with_id", with_id)]


# -- what is read -----------------------------------------------------------------------------------------------------


@bug("parsers")
def parser_strips_all_spaces() -> list[Patch]:
    """9.2.6 takes one space away, and no more."""

    def take(self: EventStreamParser, line: str) -> Any:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        return self._field(name, value.lstrip(" "))

    return [(EventStreamParser, "_take", take)]


@bug("parsers")
def parser_ends_lines_at_u2028() -> list[Patch]:
    """As str.splitlines does."""
    return [(shipped_streams, "_LINE_END", re.compile("\r\n|\r|\n|\u2028"))]


@bug("parsers")
def parser_takes_a_cut_crlf_for_two_ends() -> list[Patch]:
    """An event is dispatched before its data is whole."""

    def push(self: EventStreamParser, portion: bytes) -> Any:
        self._after_cr = False
        return original(self, portion)

    original = EventStreamParser.push
    return [(EventStreamParser, "push", push)]


@bug("parsers")
def parser_takes_an_id_with_nul() -> list[Patch]:
    """9.2.6: such an id is ignored."""

    def field(self: EventStreamParser, name: str, value: str) -> None:
        if name == "id":
            self._id = value
        else:
            original(self, name, value)

    original = EventStreamParser._field
    return [(EventStreamParser, "_field", field)]


@bug("parsers")
def parser_takes_digits_of_any_script() -> list[Patch]:
    """9.2.6: ASCII digits."""
    return [(shipped_streams, "_DIGITS", re.compile(r"\d+"))]


@bug("cursor")
def cursor_may_be_followed_by_anything() -> list[Patch]:
    """A cursor is recognised by its beginning."""
    return [(cursors, "_ENTRY", _Loose(cursors._ENTRY.pattern))]


@bug("cursor")
def cursor_may_have_any_letters() -> list[Patch]:
    """Python's ``\\w`` is every script's, and its ``int`` reads every script's digits."""
    pattern = r"(?P<topic>[\w-]{4})(?:(?P<epoch>[\w-]{6})(?P<seq>\w{1,12}))?"
    return [(cursors, "_ENTRY", re.compile(pattern))]


@bug("cursor")
def cursor_may_count_to_anything() -> list[Patch]:
    """A number that no database can hold."""
    pattern = cursors._ENTRY.pattern.replace("{1,12}", "{1,}")
    return [(cursors, "_ENTRY", re.compile(pattern))]


@bug("cursor")
def cursor_may_be_as_long_as_it_likes() -> list[Patch]:
    """Whoever asks decides how much work it is."""
    return [(cursors, "MAX_LENGTH", 10**9)]


@bug("cursor")
def second_position_on_a_topic_is_lost() -> list[Patch]:
    """Cursors that were joined say less than both."""

    def positions(self: Cursor, topic: str) -> list[Position]:
        return self._entries.get(cursors.topic_mark(topic), [])[:1]

    return [(Cursor, "positions", positions)]


# -- names ------------------------------------------------------------------------------------------------------------


@bug("names")
def signature_of_anybody_holds() -> list[Patch]:
    """A leaked URL is good for everybody."""
    return [(topics, "_signer", lambda viewer: signing.TimestampSigner(sep="~", salt="livefeed.topic"))]


@bug("names")
def signature_is_compared_by_its_beginning() -> list[Patch]:
    """The rest may be anything."""
    return [(signing, "constant_time_compare", lambda given, wanted: given[:10] == wanted[:10])]


@bug("names")
def letters_of_a_signature_have_no_case() -> list[Patch]:
    """As a database or a file system could compare them."""
    return [(signing, "constant_time_compare", lambda given, wanted: given.lower() == wanted.lower())]


@bug("names")
def name_without_unicode_raises() -> list[Patch]:
    """Found by fuzzing: a lone surrogate can't be signed, and so can't be compared."""

    def signature_holds(name: str, viewer: str) -> bool:
        try:
            topics._signer(viewer).unsign(name)
        except signing.BadSignature:
            return False
        return True

    return [(names, "signature_holds", signature_holds)]


# -- the view ---------------------------------------------------------------------------------------------------------


@bug("view")
def garbage_is_an_error() -> list[Patch]:
    """A cursor that is none fails the request."""

    def stream_cursor(request: HttpRequest) -> tuple[Cursor | None, bool]:
        text = views._cursor_text(request)
        return (parse_cursor(text), False) if text else (None, False)

    return [(views, "_stream_cursor", stream_cursor)]


@bug("view")
def garbage_is_forgiven() -> list[Patch]:
    """Who comes back with garbage is not told that something is missing."""
    original = views._stream_cursor
    return [(views, "_stream_cursor", lambda request: (original(request)[0], False))]


@bug("view")
def reset_comes_twice() -> list[Patch]:
    """Each of them makes a page read everything anew."""

    def reset_block(*args: Any) -> bytes:
        return original(*args) * 2

    original = streams.reset_block
    return [(streams, "reset_block", reset_block)]


@bug("view")
def unowned_topics_are_open() -> list[Patch]:
    """What no rule opens is not closed."""

    def answer(question: access.Question, opened: Any) -> bool:
        return registry.owner(question.topic) is None or original(question, opened)

    original = access._answer
    return [(access, "_answer", answer)]


@bug("view")
def signed_names_are_good_for_anybody() -> list[Patch]:
    """Whoever has the URL may read."""
    return [(access, "signature_holds", lambda name, viewer: True)]


@bug("view")
def refusal_names_what_is_there() -> list[Patch]:
    """The error says which topics it is about."""

    def refusal(request: HttpRequest, viewer: Viewer) -> views.Problem:
        problem = original(request, viewer)
        problem.detail += f" ({', '.join(request.GET.getlist('topic'))})"
        return problem

    original = views._refusal
    return [(views, "_refusal", refusal)]


@bug("view")
def media_type_that_can_not_be_decoded_is_an_error() -> list[Patch]:
    """An Accept header with an unknown charset fails the request."""

    def answer_for(request: HttpRequest) -> Any:
        for part in request.headers.get("Accept", "").split(";"):
            charset = part.partition("*=")[2].partition("'")[0]
            "x".encode(charset or "utf-8")
        return original(request)

    original = views._answer_for
    return [(views, "_answer_for", answer_for)]


@bug("view")
def stream_is_not_left() -> list[Patch]:
    """Its client went, and it counts for ever."""
    return [(roster.Roster, "leave", lambda self, stream: None)]


@bug("view")
def replay_skips_its_first_event() -> list[Patch]:
    """Off by one."""

    async def page(self: Any, topic: str, after: int, max_bytes: int = 65_536) -> Any:
        head, frames = await original(self, topic, after, max_bytes)
        return head, [*frames[:1], *frames[2:]]

    original = streams.Hub.page
    return [(streams.Hub, "page", page)]


@bug("view")
def answer_may_be_cached() -> list[Patch]:
    """A proxy hands one user's stream to another."""
    return [(responses, "HEADERS", {"Cache-Control": "public"})]


@bug("tokens")
def token_is_not_compared() -> list[Patch]:
    """Whoever knows the format writes tokens."""
    return [(signing, "constant_time_compare", lambda given, wanted: True)]


@bug("tokens")
def spoiled_token_is_an_error() -> list[Patch]:
    """Only the signature is looked at, and not what was signed."""

    def read_token(text: str) -> Any:
        try:
            return original(text)
        except AuthenticationFailed as failure:
            raise ValueError(text) from failure

    original = tokens.read_token
    return [(tokens, "read_token", read_token)]


@bug("tokens")
def spoiled_token_is_told() -> list[Patch]:
    """What was meant to be secret stands in the error, and so in a log."""

    def read_token(text: str) -> Any:
        try:
            return original(text)
        except AuthenticationFailed:
            raise AuthenticationFailed(f"{text} is not a token.") from None

    original = tokens.read_token
    return [(tokens, "read_token", read_token)]


@bug("view")
def scope_of_a_token_is_forgotten() -> list[Patch]:
    """A token for one topic opens all that its user may read."""

    def token(request: HttpRequest) -> authentication.Identity | None:
        found = authentication.token(request)
        return found and found._replace(scope=None)

    return [(authentication, "load", lambda path: token if path.endswith(".token") else import_string(path))]


@bug("view")
def pages_of_siblings_are_ours() -> list[Patch]:
    """Another subdomain makes a user's browser connect."""
    return [(origins, "_OURS", frozenset({"same-origin", "none", "same-site"}))]


@bug("view")
def origins_are_compared_by_their_beginning() -> list[Patch]:
    """https://app.example.evil.example is not https://app.example."""

    def is_allowed(origin: str | None) -> bool:
        return any((origin or "").startswith(allowed) for allowed in origins.settings.ALLOWED_ORIGINS)

    return [(origins, "_is_allowed", is_allowed)]


@bug("request")
def topics_are_not_counted() -> list[Patch]:
    """Whoever asks decides how many there are."""

    def asked(request: HttpRequest) -> Sequence[str]:
        with patch.object(views.settings.__class__, "MAX_TOPICS", 10**9):
            return original(request)

    original = views._asked_topics
    return [(views, "_asked_topics", asked)]


@bug("request")
def address_is_what_the_client_says() -> list[Patch]:
    """An empty hop is an address too."""
    return [(request_target, "address_of", lambda request: request.headers.get("X-Forwarded-For", "x"))]
