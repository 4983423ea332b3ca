"""The fixtures of the reading half's tests: a hub or a roster that is cleaned up after use.

A plugin of its own: ``pytest_plugins = ["tests.reading_fixtures"]``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from livefeed import LiveFeed, broker
from livefeed.events import Event
from livefeed.history import History, get_history
from livefeed.hub import Hub
from livefeed.registry import registry
from livefeed.roster import Roster, get_roster
from tests.reading import eventually, plain_encode, pool_threads

MEMORY = "livefeed.history.memory.MemoryHistory"


@pytest.fixture
def memory(settings: Any) -> History:
    """The history in memory, empty, which hubs look at so rarely that a test has to ask for it."""
    settings.LIVEFEED_LOOK_INTERVAL = 3600.0
    settings.LIVEFEED_HISTORY = MEMORY
    return get_history()


@pytest.fixture
def layer() -> Iterator[Any]:
    """The in-memory layer that a site without CHANNEL_LAYERS gets, with nobody on it."""
    broker._own_layer.cache_clear()
    yield broker.channel_layer()
    broker._own_layer.cache_clear()


@pytest.fixture
async def new_hub(layer: Any) -> AsyncIterator[Callable[..., Hub]]:
    """Return `new_hub(encode)`, which makes hubs that are stopped at the end."""
    hubs: list[Hub] = []

    def make(encode: Callable[[Event], bytes] = plain_encode) -> Hub:
        hubs.append(Hub(encode))
        return hubs[-1]

    yield make
    for hub in hubs:
        await hub.stop()
    await eventually(lambda: not pool_threads(), "the hubs' threads have ended")


@pytest.fixture
async def hub(memory: History, new_hub: Callable[..., Hub]) -> Hub:
    """A hub on the history in memory."""
    return new_hub()


@pytest.fixture
async def roster(
    transactional_db: None, layer: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Roster]:
    """The roster of the running loop, on the test's database, quick to do its chores."""
    monkeypatch.setattr("livefeed.roster.RELEASE_EVERY", 0.01)
    settings.LIVEFEED_LOOK_INTERVAL = 0.05
    roster = get_roster()
    yield roster
    await roster.close()
    await sync_to_async(connections.close_all)()
    await eventually(lambda: not pool_threads(), "the hub's threads have ended")


@pytest.fixture
def with_feed() -> Iterator[Callable[[type[LiveFeed]], None]]:
    """Return a function that registers a feed until the end of the test."""
    feeds: list[type[LiveFeed]] = []

    def add(cls: type[LiveFeed]) -> None:
        feeds.append(cls)
        registry.add(cls)

    yield add
    for cls in feeds:
        registry.remove(cls)
