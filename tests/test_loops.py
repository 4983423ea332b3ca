"""One of something for each event loop."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from livefeed.guard import reaper
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


def test_the_reaper_does_not_keep_a_loop_that_has_ended_meanwhile() -> None:
    async def watch_once() -> weakref.ref[asyncio.AbstractEventLoop]:
        guard = object()
        reaper().watch(guard)
        reaper().forget(guard)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(watch_once())
    gc.collect()
    assert loop() is None
