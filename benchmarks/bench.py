"""One run of the benchmarks: its services, how much of everything, and what came out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.measures import Measure, Verdict
from benchmarks.peers import Peer
from benchmarks.services import Services

MakeVerdict = Callable[[float, str, str, float, str], Verdict]


@dataclass(frozen=True)
class Bench:
    """What a scenario is given."""

    services: Services
    quick: bool
    repeats: int

    def amount(self, full: int, quick: int) -> int:
        """Return how much of something: less where it has to be quick."""
        return quick if self.quick else full

    def attempt(self, peer: Peer, measure: Callable[[], None], result: Result) -> bool:
        """Measure a peer; tell whether that went well. One that fails is left out, and the others go on."""
        try:
            measure()
        except Exception as error:
            traceback.print_exc()
            result.notes.append(f"{peer.name} failed: {error!r}"[:400])
            return False
        return True

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

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Table:
        """Return a table that was kept."""
        rows = {
            name: [cell if isinstance(cell, str) else Measure.of(cell["values"]) for cell in row]
            for name, row in kept["rows"].items()
        }
        return cls(kept["title"], kept["columns"], rows)

    def median(self, row: str, column: str) -> float:
        """Return one figure."""
        cell = self.rows[row][self.columns.index(column)]
        if isinstance(cell, str):
            raise TypeError(f"{cell!r} in {self.title!r} is not a figure.")
        return cell.median


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
    failure: str = ""
    seconds: float = 0.0

    def judge(
        self,
        verdict: Callable[..., Verdict],
        bound: float,
        what: str,
        against: str,
        ratio: float | None,
        note: str = "",
    ) -> None:
        """Hold a ratio to its bound; None where one of its sides was not there."""
        if ratio is not None:
            self.verdicts.append(verdict(bound, what, against, ratio, note))

    def as_json(self) -> dict[str, Any]:
        """Return it as what ``json.dump`` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Result:
        """Return what :meth:`as_json` has kept."""
        made = cls(**kept)
        made.verdicts = [Verdict(**verdict) for verdict in kept["verdicts"]]
        made.plots = [Plot(**plot) for plot in kept["plots"]]
        made.tables = [Table.from_json(table) for table in kept["tables"]]
        return made
