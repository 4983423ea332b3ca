"""Real processes for tests: started, watched, and stopped by their process id.

Each one leads a process group of its own, so that stopping it can't miss a worker it has forked, and writes to a log
file that is printed when it stops: pytest shows it where the test failed and nowhere else.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent

START_LIMIT = 60.0
STOP_LIMIT = 15.0
POLL_SECONDS = 0.05


def free_port() -> int:
    """Return a TCP port on the loopback address that nobody listens on, nor will until it is used.

    Each worker of pytest-xdist has a range of its own, below those from which connections get theirs: two workers that
    ask in the same moment would otherwise be given the same port now and then, and share a server.
    """
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or -1) + 1
    lowest = 10_000 + worker % 11 * 2000
    for port in random.sample(range(lowest, lowest + 2000), 2000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"No port from {lowest} to {lowest + 1999} is free.")


def poll(condition: Callable[[], bool], *, limit: float, what: str) -> None:
    """Wait until `condition()` holds; for what sends no event when it changes (a foreign process, mostly).

    Raises TimeoutError with `what` after `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"After {limit:g} s still not so: {what}.")
        time.sleep(POLL_SECONDS)


def accepts(port: int) -> bool:
    """Say whether somebody accepts TCP connections on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return this process's environment with changes; None removes a variable."""
    changed = {**os.environ, **(changes or {})}
    return {name: value for name, value in changed.items() if value is not None}


class Process:
    """A running command.

    `ready` is asked again and again until it says yes; a command that ends before is an error, with its log.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], bool],
        env: Mapping[str, str | None] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = log
        self.ready = ready
        self.env = environment({"PYTHONUNBUFFERED": "1", **(env or {})})
        self.cwd = cwd
        self.popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def returncode(self) -> int | None:
        return self._running().poll()

    def log(self) -> str:
        """Return what the process has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        with self.log_path.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )
        try:
            poll(self._is_ready, limit=START_LIMIT, what=f"{self.name} answers")
        except BaseException:
            self.stop()
            raise
        return self

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and everything it has started, at once (SIGKILL)."""
        if self.popen is None:
            return
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()

    def wait(self, limit: float = STOP_LIMIT) -> int:
        """Wait for the end; return the exit code. Raises subprocess.TimeoutExpired after `limit` seconds."""
        return self._running().wait(limit)

    def stop(self, limit: float = STOP_LIMIT) -> None:
        """End the process with SIGTERM, after `limit` seconds with SIGKILL, and print its log."""
        if self.popen is None:
            return
        self.terminate()
        try:
            self.wait(limit)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end within {limit:g} s of SIGTERM: killed.")
        self.kill()
        self.popen = None
        print(f"----- log of {self.name} -----\n{self.log()}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self.popen is None:
            raise RuntimeError(f"{self.name} has not been started.")
        return self.popen

    def _is_ready(self) -> bool:
        if self.returncode is not None:
            raise RuntimeError(f"{self.name} ended with {self.returncode} before it answered.\n{self.log()}")
        return self.ready()

    def _signal(self, number: signal.Signals) -> None:
        if self._running().poll() is None:
            self._running().send_signal(number)


def run(
    command: Sequence[str], *, env: Mapping[str, str | None] | None = None, cwd: Path = ROOT, limit: float = 300
) -> str:
    """Run a command to its end and return its stdout; an exit code that is not 0 is an error with all output."""
    done = subprocess.run(
        list(command),
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}.\n{done.stdout}\n{done.stderr}")
    return done.stdout
