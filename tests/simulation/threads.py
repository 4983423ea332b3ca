"""Threads of the simulation: real ones, of which one at a time runs, from one pause to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import Process


class Killed(BaseException):
    """This thread's process was killed. No ``except Exception`` catches it, as none survives a SIGKILL."""


class Thread:
    """A thread that runs when the world says so."""

    def __init__(self, process: Process, work: Callable[[], object], name: str) -> None:
        self.process = process
        self.name = name
        self.ended = False
        self.killed = False
        self._world = process.world
        self._work = work
        self._condition: Callable[[], bool] | None = None
        self._go = threading.Lock()
        self._go.acquire()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def runnable(self) -> bool:
        return not self.ended and (self._condition is None or self._condition())

    def resume(self) -> None:
        """Run on until the next pause, or to the end."""
        self._world.thread = self
        self._go.release()
        self._world.baton.acquire()
        self._world.thread = None

    def pause(self, condition: Callable[[], bool] | None = None) -> None:
        """Give the turn back, and go on when it comes again and the condition holds."""
        if self.killed:
            raise Killed
        self._condition = condition
        self._world.baton.release()
        self._go.acquire()
        self._condition = None
        if self.killed:
            raise Killed

    def kill(self) -> None:
        """End this thread where it pauses, or at its next pause if it is the one that runs."""
        self.killed = True
        if not self.ended and self._world.thread is not self:
            before = self._world.thread
            self.resume()
            self._world.thread = before

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.killed:
                self._work()
        except Killed:
            pass
        except Exception as error:
            self._world.tell(f"{self.name} ended with {error!r}")
        finally:
            self.ended = True
            self._world.baton.release()
