"""Where things lie: what is built and installed for the benchmarks is under ``benchmarks/build``, which git ignores."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
BUILD = BENCHMARKS / "build"
VENV = BUILD / "venv"
PYTHON = VENV / "bin" / "python"
NODE = BUILD / "node"
BIN = BUILD / "bin"
SCRATCH = BUILD / "scratch"
RESULTS = BUILD / "results"

#: Cores: servers run on the one, what they serve and what they need on the other.
SERVER_CORE, LOAD_CORE = 0, 1


def python() -> str:
    """Return the interpreter that has the peers, or the one at hand where they have not been installed."""
    return str(PYTHON if PYTHON.exists() else sys.executable)
