"""The targets, by name: what makes cases and what checks one."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from . import cursor, encode, names, parsers, request, tokens, view
from .words import Case


class Target(NamedTuple):
    """``make`` draws a case; ``check`` raises, whatever it likes, where livefeed does not do what it must."""

    make: Callable[[Random], Case]
    check: Callable[[Case], None]


TARGETS = {
    "view": Target(view.make, view.check),
    "request": Target(request.make, request.check),
    "cursor": Target(cursor.make, cursor.check),
    "encode": Target(encode.make, encode.check),
    "names": Target(names.make, names.check),
    "tokens": Target(tokens.make, tokens.check),
    "parsers": Target(parsers.make, parsers.check),
}


def failure(target: Target, case: Case) -> Exception | None:
    """Check a case; return what is wrong."""
    try:
        target.check(case)
    except Exception as error:
        return error
    return None
