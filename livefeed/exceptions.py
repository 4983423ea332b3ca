"""Every error that livefeed raises on purpose. Each message gives the value, the rule and the cure."""


class LivefeedError(Exception):
    """Base of all errors that livefeed raises on purpose."""


class InvalidTopic(LivefeedError, ValueError):
    """A topic name that breaks the rule for names (see :mod:`livefeed.topics`)."""


class InvalidType(LivefeedError, ValueError):
    """An event type that no client could receive, or one that is reserved."""


class InvalidData(LivefeedError, ValueError):
    """Event data that can't be written as JSON, or is larger than ``LIVEFEED_MAX_EVENT_BYTES``."""


class InvalidCursor(LivefeedError, ValueError):
    """Text that is not a cursor of ours."""


class FeedError(LivefeedError):
    """A feed whose declaration or hook can't be used: what it returned, and what it should have returned."""


class WrongContext(LivefeedError, RuntimeError):
    """A call from a place where it would block or could not keep its promise; the message says what to call instead."""


class HistoryUnavailable(LivefeedError):
    """A history outside of Django's databases can't be reached, or answers too late. What it raised is the cause."""


class LimitReached(LivefeedError):
    """A connection that is one too many.

    ``reason`` is ``"limit"`` (of what ``of`` names), ``"rate"``, ``"capacity"`` (of the process), ``"shutdown"`` or
    ``"unavailable"``; ``limit`` is the number of connections allowed, for a rate that of requests per minute; ``of`` is
    whose limit it is: ``"user"``, ``"session"``, ``"address"``, ``"topic"``, or "" for the other reasons.
    """

    def __init__(self, reason: str, limit: int, of: str = "") -> None:
        whose = f" of the {of}" if of else ""
        super().__init__(f"connection refused: {reason}{whose} ({limit} allowed)")
        self.reason = reason
        self.limit = limit
        self.of = of


class InvalidToken(LivefeedError, ValueError):
    """What no token can be made of (see :func:`livefeed.create_token`)."""


class AuthenticationFailed(LivefeedError):
    """Credentials that were sent and don't hold: the view answers 401.

    ``detail`` is told to the client, ``challenge`` is its ``WWW-Authenticate`` header (RFC 6750, section 3).
    """

    def __init__(
        self, detail: str = "These credentials do not hold.", challenge: str = 'Bearer error="invalid_token"'
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        #: What is no header would be an error of the server's, and EventSource would not come back.
        self.challenge = challenge if challenge.isascii() and challenge.isprintable() else "Bearer"
