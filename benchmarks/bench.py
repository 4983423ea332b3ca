"""One run of the benchmarks: its services, how much of everything, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measures import Measure, Verdict
from benchmarks.peers import Peer
from benchmarks.services import Services


@dataclass(frozen=True)
class Bench:
    """What a scenario is given."""

    services: Services
    quick: bool
    repeats: int

    def amount(self, full: int, quick: int) -> int:
        """Return how much of something: less where it has to be quick."""
        return quick if self.quick else full

    def present(self, peers: Sequence[Peer]) -> list[Peer]:
        """Return the peers that this machine can run, and say which it can't."""
        for peer in peers:
            if peer.lacks:
                print(f"left out: {peer.name}, because {peer.lacks}", flush=True)
        return [peer for peer in peers if not peer.lacks]


@dataclass
class Table:
    """A table of the report: a row per peer or size, a measure per column."""

    title: str
    columns: list[str]
    rows: dict[str, list[Measure | str]] = field(default_factory=dict)


@dataclass
class Plot:
    """Lines over a common axis."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    logarithmic: bool = True


@dataclass
class Result:
    """What a scenario found."""

    name: str
    question: str
    tables: list[Table] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as what ``json.dump`` takes."""
        return {
            "name": self.name,
            "question": self.question,
            "tables": [
                {
                    "title": table.title,
                    "columns": table.columns,
                    "rows": {
                        name: [cell.values if isinstance(cell, Measure) else cell for cell in row]
                        for name, row in table.rows.items()
                    },
                }
                for table in self.tables
            ],
            "verdicts": [
                {**vars(verdict), "wanted": verdict.wanted, "reached": verdict.is_reached} for verdict in self.verdicts
            ],
            "plots": [vars(plot) for plot in self.plots],
            "notes": self.notes,
        }
