"""The relay at work: in tests it stands still, unless they ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from livefeed import relay


@pytest.fixture
def working_relay(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[relay.Relay]:
    """A relay of this test's own, which does what the relay of a site does; its pause is long, but flush() ends it."""
    settings.LIVEFEED_RELAY_PAUSE = 1.0
    mine = relay.Relay()
    with monkeypatch.context() as patch:
        patch.setattr(relay, "mail", SimpleNamespace())  # as it is where nobody tests
        patch.setattr(relay, "_relay", mine)
        yield mine
        mine.flush(30)
