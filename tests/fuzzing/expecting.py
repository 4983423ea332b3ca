"""How a check says what it found."""

from __future__ import annotations


class Broken(AssertionError):
    """livefeed did something that it must not do."""


def expect(holds: object, message: str) -> None:
    """Raise :exc:`Broken` unless something holds."""
    if not holds:
        raise Broken(message)
