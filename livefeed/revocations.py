"""What one process tells the others when a right may have ended: which live connections are meant, and what becomes of
them. Plain Python.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple


class Revocation(NamedTuple):
    """Connections that are to be looked at again, or closed: those that everything given here fits; nothing fits all.

    ``holder`` is whose connection it is ("user:7"), ``session`` the digest of a session's key, ``leases`` are tokens.
    """

    holder: str = ""
    session: str = ""
    topic: str = ""
    leases: tuple[str, ...] = ()
    close: bool = False


#: Everybody is looked at again.
EVERYBODY = Revocation()


def pack(revocations: Sequence[Revocation]) -> bytes:
    """Return revocations as bytes for another process."""
    return json.dumps(revocations).encode()


def unpack(body: bytes) -> list[Revocation]:
    """Return what was packed. Raises ValueError or TypeError for what was not packed by us."""
    found = []
    for holder, session, topic, leases, close in json.loads(body):
        texts = [holder, session, topic, *leases]
        if not all(isinstance(text, str) for text in texts) or not isinstance(close, bool):
            raise ValueError(f"{texts} are not a revocation's texts")
        found.append(Revocation(holder, session, topic, tuple(leases), close))
    return found
