"""The quickstart of README.md as a machine follows it.

A line before each fenced block says what the reader does with it:

<!-- run -->                 types these commands into a shell (a `cd` lasts)
<!-- file: news/feeds.py --> writes this new file
<!-- append: news/urls.py --> adds this to the end of a file that is there
<!-- replace: site/asgi.py --> puts this in place of a file that is there

Blocks without such a line are for looking at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT, run

README = ROOT / "README.md"
STEP = re.compile(
    r"^<!-- (?P<verb>run|file|append|replace)(?:: (?P<path>\S+))? -->\s*\n+```[^\n]*\n(?P<text>.*?)^```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
MARKER = re.compile(r"^<!-- (run|file|append|replace)\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One block of the quickstart."""

    verb: str
    path: str
    text: str


def steps(text: str) -> list[Step]:
    """Return the steps of a README in their order; a marker without a block after it is an error."""
    found = [Step(match["verb"], match["path"] or "", match["text"]) for match in STEP.finditer(text)]
    markers = [match[0] for match in MARKER.finditer(text)]
    if len(markers) != len(found):
        raise ValueError(f"{README.name} has {len(markers)} markers but {len(found)} blocks that follow one: {markers}")
    return found


class Follower:
    """Somebody who follows the steps, beginning in an empty directory."""

    def __init__(self, directory: Path, env: Mapping[str, str | None]) -> None:
        self.directory = directory
        self.env = env

    def follow(self, step: Step) -> None:
        if step.verb == "run":
            self._run(step.text)
            return
        path = self.directory / step.path
        if path.exists() == (step.verb == "file"):
            raise ValueError(
                f"{README.name} says {step.verb} {step.path}, which is {'' if path.exists() else 'not '}there."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if step.verb == "append" else ""
        path.write_text(f"{before}\n{step.text}" if before else step.text)

    def _run(self, commands: str) -> None:
        script = f"set -e\n{commands}\npwd >&3\n"
        where = self.directory / ".where"
        run(["bash", "-c", f"exec 3>{where}\n{script}"], env=self.env, cwd=self.directory)
        self.directory = Path(where.read_text().strip())
