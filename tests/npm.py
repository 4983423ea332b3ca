"""The npm packages that tests use: those of package.json, which pins them, in the node_modules of `make js`.

They are fetched once for as long as package.json stays as it is, however many tests and workers want them, and never
become part of the repository. A test marks that it `needs("npm")`, and takes the fixture `npm`.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

from tests.processes import ROOT, run

PACKAGES = ROOT / "package.json"
MODULES = ROOT / "node_modules"
STAMP = MODULES / ".livefeed"


def is_installed() -> bool:
    """Tell whether what package.json asks for is here, by the rule that `make` goes by."""
    return STAMP.exists() and STAMP.stat().st_mtime >= PACKAGES.stat().st_mtime


def install() -> Path:
    """Fetch the packages where they are not here yet; return their directory."""
    with PACKAGES.open() as lock:  # the workers of a run come at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_installed():
            run(["make", str(STAMP.relative_to(ROOT))])
    return MODULES
