"""What a run leaves behind: ``results.json``, ``results.md`` and the plots."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.bench import Plot, Result, Table
from benchmarks.measures import short

__all__ = ["draw", "found", "machine", "rows", "short", "verdict_table", "write"]

PACKAGES = ("django", "uvicorn", "uvloop", "daphne", "channels", "django-eventstream", "sse-starlette")


def kept(directory: Path) -> dict[str, Result]:
    """Return what was written into a directory, by scenario."""
    path = directory / "results.json"
    found = json.loads(path.read_text())["results"] if path.exists() else []
    return {each["name"]: Result.from_json(each) for each in found}


def write(results: Sequence[Result], directory: Path, command: str) -> Path:
    """Write everything into a directory; return the path of the page."""
    directory.mkdir(parents=True, exist_ok=True)
    whole = {"command": command, "machine": machine(), "results": [result.as_json() for result in results]}
    (directory / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    drawn = draw([plot for result in results for plot in result.plots], directory)
    page = directory / "results.md"
    page.write_text("\n".join(_page(results, drawn, command)) + "\n")
    return page


def _page(results: Sequence[Result], drawn: Sequence[str], command: str) -> Iterator[str]:
    yield "# Results"
    yield ""
    yield f"`{command}` on {machine()}."
    yield ""
    verdicts = [verdict for result in results for verdict in result.verdicts]
    if verdicts:
        yield from verdict_table(results)
    for result in results:
        yield from found(result, "##")
    for name in drawn:
        yield from (f"![{name}]({name})", "")


def found(result: Result, heading: str) -> Iterator[str]:
    """Yield the lines of what a scenario found."""
    yield from (f"{heading} {result.question}", "")
    for table in result.tables:
        yield from _table(table)
    for note in [*result.notes, *([f"It failed: {result.failure}"] if result.failure else [])]:
        yield from (note, "")


def verdict_table(results: Iterable[Result]) -> Iterator[str]:
    """Yield the lines of the table of what must be reached."""
    yield "| what | against | wanted | measured | |"
    yield "| --- | --- | --- | --- | --- |"
    for result in results:
        for verdict in result.verdicts:
            note = f" ({verdict.note})" if verdict.note else ""
            reached = "reached" if verdict.is_reached else "**not reached**"
            yield f"| {verdict.what} | {verdict.against} | {verdict.wanted} | {verdict.ratio:.2f} ×{note} | {reached} |"
    yield ""


def _table(table: Table) -> Iterator[str]:
    yield from (f"**{table.title}**", "")
    yield from rows(table)


def rows(table: Table) -> Iterator[str]:
    """Yield the lines of a table without its title."""
    yield "| | " + " | ".join(table.columns) + " |"
    yield "| --- |" + " --- |" * len(table.columns)
    for name, row in table.rows.items():
        yield f"| {name} | " + " | ".join(map(str, row)) + " |"
    yield ""


def machine() -> str:
    """Say on what this ran."""
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    kernel = ".".join(platform.release().split(".")[:2])
    packages = ", ".join(_versions(*PACKAGES))
    return f"{cores} cores, {platform.system()} {kernel}, Python {platform.python_version()}, {packages}"


def _versions(*packages: str) -> Iterator[str]:
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            yield f"{package} {version(package)}"


def draw(plots: Sequence[Plot], directory: Path) -> list[str]:
    """Draw the plots as SVG; return the names of the files."""
    if not plots:
        return []
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "livefeed"
    from matplotlib import pyplot

    for plot in plots:
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for name, points in plot.lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        if plot.logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        figure.savefig(directory / f"{plot.name}.svg", bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
    return [f"{plot.name}.svg" for plot in plots]
