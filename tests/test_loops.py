"""One of something for each event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from livefeed.loops import OnePerLoop


class Something:
    pass


def test_each_event_loop_has_one_of_its_own_that_goes_with_it() -> None:
    one = OnePerLoop(Something)

    async def ask() -> Something:
        assert one() is one()
        return one()

    first, second = asyncio.run(ask()), asyncio.run(ask())
    assert first is not second
    kept = weakref.ref(first)
    del first
    gc.collect()
    assert kept() is None


def test_without_an_event_loop_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        OnePerLoop(Something)()
