"""Target ``request``: the same requests as ``view``, ten times as many: only what reads a request is asked."""

from __future__ import annotations

from random import Random

from django.core.exceptions import TooManyFieldsSent

from livefeed import views
from livefeed.conf import settings
from livefeed.viewers import address_of

from . import site, view
from .cursor import understood
from .expecting import expect
from .words import Case


def make(random: Random) -> Case:
    return view.make(random)


def check(case: Case) -> None:
    _, scope = view.requested(case)
    with site.configured(view.allowed(case["settings"])):
        request = site.request_of(scope)
        if request is None:
            return
        asked = view.asked_by(scope)
        try:
            names = views._asked_topics(request)
        except views.Problem as problem:
            expect(problem.status in (400, 414) and len(str(problem)) < 1_000, f"{problem.status}: {problem}")
        except TooManyFieldsSent:  # which the view makes a problem of
            expect(asked.too_many_fields, "too many parameters, of few")
        else:
            expect(names == asked.names, f"{names} instead of {asked.names}")
            expect(1 <= len(names) <= settings.MAX_TOPICS, f"{len(names)} topics")
        try:
            views._answer_for(request)
        except views.Problem as problem:
            expect(problem.status == 406, f"{problem.status}: {problem}")
        if not asked.too_many_fields:  # else it is not asked for any more
            cursor, garbage = views._stream_cursor(request)
            expect(garbage == bool(asked.cursor and understood(asked.cursor) is None), f"garbage: {asked.cursor!r}")
            expect((cursor is not None) == bool(asked.cursor and not garbage), f"no cursor: {asked.cursor!r}")
        expect(address_of(request), "nobody's address")
