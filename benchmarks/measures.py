"""A figure that was measured several times, and a bound that it is held to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

#: What stands for a figure that a run does not have.
UNKNOWN = "–"


@dataclass(frozen=True)
class Measure:
    """A figure with its repeats."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Measure:
        """Return the measure of these values."""
        return cls(tuple(values))

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        text = short(self.median)
        if len(self.values) > 1 and (low := short(min(self.values))) != (high := short(max(self.values))):
            text += f" ({low} to {high})"
        return text


def short(value: float) -> str:
    """Return a number with three digits that count."""
    if math.isnan(value):
        return UNKNOWN
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


@dataclass(frozen=True)
class Verdict:
    """One row of what must be reached: a ratio of two figures of one run, and its bound."""

    what: str
    against: str
    ratio: float
    bound: float
    at_least: bool
    note: str = ""

    @property
    def is_reached(self) -> bool:
        """Whether the bound is kept."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g} ×"


def at_least(bound: float, what: str, against: str, ratio: float, note: str = "") -> Verdict:
    """Return the verdict on a ratio that must not be smaller."""
    return Verdict(what, against, ratio, bound, True, note)


def at_most(bound: float, what: str, against: str, ratio: float, note: str = "") -> Verdict:
    """Return the verdict on a ratio that must not be larger."""
    return Verdict(what, against, ratio, bound, False, note)
