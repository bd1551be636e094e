"""Asking a run's Ray processes how they are, without ever waiting for them."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from cluster.vitals import State, Vitals
from cluster.weights import KNOCK


class RollCall:
    """What is known of every process; a thread of its own may call.

    A process answers between its blocks or steps. Until it does it is only knocked at (see `KNOCK`); what it said last
    counts: one that hangs is seen by the time when it was last heard of.

    Args:
        names: of the processes by their handles; those that are added later are asked, too.
        logs: folder for what those print that are on other machines.

    Attributes:
        first: the process that ended by itself before any other; empty: none did. What follows comes of it.
    """

    def __init__(self, names: Mapping[Any, str], logs: Path) -> None:
        self._names, self._logs = names, logs
        self._asked: dict[Any, tuple[Any, float]] = {}  # the answer to come, and when something was sent last
        self._known: dict[str, Vitals] = {}
        self._lock, self._over = threading.Lock(), False
        self.first = ""

    def call(self) -> list[Vitals]:
        """Take the answers that are there, ask again, and tell what is known, in the order of names."""
        with self._lock:
            names = list(self._names.items())  # once: while a run starts, others are added meanwhile
            for process, name in names:
                known = self._known.setdefault(name, Vitals(name))
                if not self._over and known.state in ("starts", "runs"):
                    self._known[name] = self._asked_again(process, known)
            return [self._known[name] for _, name in names]

    def note(self, name: str, state: State) -> None:
        """A process ended by itself."""
        self.first = self.first or name
        with self._lock:
            self._known[name] = replace(self._known.get(name, Vitals(name)), state=state)

    def replaced(self, process: Any, name: str) -> None:
        """Another process is to take one's place."""
        with self._lock:
            self._asked.pop(process, None)
            known = self._known.get(name, Vitals(name))
            self._known[name] = replace(known, state="starts", restarts=known.restarts + 1, pid=0)
        self.first = "" if self.first == name else self.first

    def left(self, process: Any, name: str) -> None:
        """A process is not wanted any more."""
        with self._lock:
            self._asked.pop(process, None)
            self._known.pop(name, None)
        self.first = "" if self.first == name else self.first

    def end(self) -> None:
        """Ask nobody any more: what is known stays."""
        with self._lock:
            self._over = True

    def _asked_again(self, process: Any, known: Vitals) -> Vitals:
        if process in self._asked:
            answer, sent = self._asked[process]
            ready, _ = ray.wait([answer], timeout=0)
            if not ready:
                if time.monotonic() - sent > KNOCK:
                    process.pid.remote()
                    self._asked[process] = answer, time.monotonic()
                return known
            try:
                known = self._heard(ray.get(ready[0]), known)
            except ray.exceptions.ActorUnavailableError:
                pass  # it is being replaced, or cannot be reached just now
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
                return replace(known, state="died")
        self._asked[process] = process.vitals.remote(), time.monotonic()
        return known

    def _heard(self, vitals: Vitals, known: Vitals) -> Vitals:
        """An answer, under the process's name; another id than before is a process that took its place."""
        if vitals.printed:
            with (
                suppress(OSError),
                open(self._logs / f"{known.name}.log", "a") as log,
            ):  # full: that ends the run itself
                log.write(vitals.printed)
        replaced = known.pid not in (0, vitals.pid)
        return replace(vitals, name=known.name, restarts=known.restarts + replaced, printed="")
