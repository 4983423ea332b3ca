"""What the benchmarks need: the peers from the package registries, nginx with nchan from Debian, two programs in C.

``python -m benchmarks.environment`` sets it all up; what is there already is left as it is.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.places import BENCHMARKS, BIN, BUILD, NODE, PYTHON, ROOT, VENV

PYTHON_PACKAGES = ["uvicorn", "uvloop", "httptools", "django-eventstream", "sse-starlette", "matplotlib", "py-spy"]
NODE_PACKAGES = ["express", "better-sse"]
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NATIVE = ("load", "writer")
#: Files that a process may have open: five thousand connections and what else it needs.
FILES = 16_384


def set_up() -> None:
    """Install and build what is missing."""
    BUILD.mkdir(exist_ok=True)
    build_native()
    install_python()
    install_node()
    install_nchan()


def allow_files() -> None:
    """Let this process and all that it starts hold thousands of connections, as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (FILES, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, soft), max(wanted, hard)))
            return


def build_native() -> None:
    """Compile what is older than its source."""
    BIN.mkdir(parents=True, exist_ok=True)
    for name in NATIVE:
        source, program = BENCHMARKS / "native" / f"{name}.c", BIN / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            _run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)])


def install_python() -> None:
    """Make the virtual environment with livefeed, as it is here, and the peers in Python."""
    stamp = VENV / ".installed"
    if stamp.exists() and stamp.read_text() == " ".join(PYTHON_PACKAGES):
        return
    _run([sys.executable, "-m", "venv", str(VENV)])
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "-e", f"{ROOT}[daphne,redis,postgres]", *PYTHON_PACKAGES])
    stamp.write_text(" ".join(PYTHON_PACKAGES))


def install_node() -> None:
    """Install the peers in JavaScript, if there is npm; without it they are left out."""
    if shutil.which("npm") is None or all((NODE / "node_modules" / name).exists() for name in NODE_PACKAGES):
        return
    NODE.mkdir(exist_ok=True)
    (NODE / "package.json").write_text('{"private": true}\n')  # else npm would take the one above
    _run(["npm", "install", "--silent", "--no-audit", "--no-fund", *NODE_PACKAGES], cwd=NODE)


def install_nchan() -> None:
    """Install nginx's nchan, if this is Debian and we may; without it that peer is left out."""
    if NCHAN.exists() or shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "libnginx-mod-nchan"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=env, capture_output=True, check=False).returncode:
        _run(["apt-get", "update", "-q"])
        subprocess.run(command, env=env, capture_output=True, check=False)


def _run(command: Sequence[str], cwd: Path = ROOT) -> None:
    print("$", " ".join(command), flush=True)
    subprocess.run(command, cwd=cwd, check=True)


if __name__ == "__main__":
    set_up()
