"""How a flush moves readers in step on: those who read one topic get the same, and those of several their own ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, repeat
from typing import NamedTuple

from .outlets import Message, Rest, Write, part, write_to_each
from .sse import with_topic
from .tail import Step, Subscription, Tail
from .window import CHUNK_BYTES

#: Bytes that an ``id:`` (1 KiB) and a ``topic:`` (200) may take, which of several topics each event has, per reader.
LONGEST_ID = 1250


class Fleeting(NamedTuple):
    """Frames that pass, as readers of their topic alone get them, and as readers of several do."""

    plain: bytes
    named: bytes

    @classmethod
    def of(cls, topic: str, frames: Iterable[bytes]) -> Fleeting:
        return cls(b"".join(frames), b"".join(with_topic(topic, frame) for frame in frames))


def steps_of(moved: Mapping[Tail, Fleeting]) -> dict[Tail, Step]:
    """Return what the cohorts of tails get next; those have stepped out of them who can't be served so.

    All of that comes before the first cohort moves on: who steps out of one is at the same places as before.
    """
    steps: dict[Tail, Step] = {}
    for tail, fleeting in moved.items():
        step = tail.step() if tail.cohort else None
        if step is None:
            _part(tail.cohort.readers())
        elif step.chunk or fleeting.plain:
            steps[tail] = step
    if sum(len(step.chunk) + len(step.blocks) * LONGEST_ID for step in steps.values()) > CHUNK_BYTES:
        for tail in steps:
            _part([reader for reader, _ in tail.cohort.several.values()])
    return steps


def _part(readers: Iterable[Subscription]) -> None:
    for reader in readers:
        reader.step_out()


def write_to_those_in_step(steps: Mapping[Tail, Step], moved: Mapping[Tail, Fleeting], now: float) -> None:
    """Move cohorts on by their steps, and pass on what is fleeting."""
    for tail, step in steps.items():
        tail.cohort.position, tail.cohort.written_at = step.position, now
    for tail, step in steps.items():
        _write_to_those_alone(tail, step.chunk + moved[tail].plain)
    _write_to_those_of_several(steps, moved)


def _write_to_those_alone(tail: Tail, body: bytes) -> None:
    """Write the same to all who read this topic alone."""
    alone = tail.cohort.alone
    if alone:
        _write(zip(list(alone), repeat(part(body)), strict=False), alone)


def _write_to_those_of_several(steps: Mapping[Tail, Step], moved: Mapping[Tail, Fleeting]) -> None:
    """Write to each who reads several topics what those of them bring that moved."""
    readers = {write: reader for tail in steps for write, (reader, _) in tail.cohort.several.items()}
    if len(readers) < sum(len(tail.cohort.several) for tail in steps):
        messages = _merged(steps, moved, readers)
    else:
        messages = chain.from_iterable(_messages(tail, step, moved[tail].named) for tail, step in steps.items())
    _write(messages, readers)


def _messages(tail: Tail, step: Step, named: bytes) -> Iterator[tuple[Write, Message]]:
    """Yield what each gets who reads a topic among others."""
    for write, (reader, index) in list(tail.cohort.several.items()):
        try:
            blocks = reader.follow(index, step)
        except Exception as error:
            reader.fail(error)
        else:
            yield write, part(blocks + named)


def _merged(
    steps: Mapping[Tail, Step], moved: Mapping[Tail, Fleeting], readers: Mapping[Write, Subscription]
) -> Iterator[tuple[Write, Message]]:
    """Yield the same where somebody reads several of the topics that moved."""
    for write, reader in readers.items():
        named = b"".join(moved[tail].named for tail in reader.tails if tail in steps)
        try:
            blocks = reader.follow_all(steps)
        except Exception as error:
            reader.fail(error)
        else:
            yield write, part(blocks + named)


def _write(messages: Iterable[tuple[Write, Message]], readers: Mapping[Write, Subscription]) -> None:
    """Write; whose write has to wait or fails is in step no more."""

    def go_on(write: Write, rest: Rest) -> None:
        readers[write].go_on(rest)

    def cut(write: Write) -> None:
        readers[write].cut()

    write_to_each(messages, go_on, cut)
