"""How every store is driven and timed: flags, rounds, speeds, and inserting beside sampling. Needs only numpy.

A script describes its store as a context manager that fills it and yields `measure`, which times one round and returns
numbers; `main` does the rest. With `--turns` the process stays and measures one round for each line that it reads, so
that several stores can take turns in one run; it prints {"ready": true} when it is filled and warm.
"""

import argparse
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from ctypes import c_double, c_int64

TASKS = ("sequences", "insert", "mixed", "transitions", "bytes")
WARM_UP = 0.4
PACE = 200.0
STOP = -2.0
FLAT_OUT = -1.0

Measure = Callable[[], dict[str, float]]
Store = Callable[[argparse.Namespace], AbstractContextManager[Measure]]


def flags(description: str | None) -> argparse.ArgumentParser:
    """The flags that every store's script takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="sequences")
    parser.add_argument("--select", choices=["uniform", "prioritised"], default="prioritised")
    parser.add_argument("--offsets", choices=["any", "aligned"], default="any", help="where windows may start")
    parser.add_argument("--grain", choices=["step", "block"], default="step", help="insert: rows of a call")
    parser.add_argument("--frames", default="sprites", help='"sprites", "noise" or the folder of a recording')
    parser.add_argument("--noise", action="store_const", dest="frames", const="noise", help="same as --frames noise")
    parser.add_argument("--rows", type=int, help="rows held (sequences 65536, transitions 100000)")
    parser.add_argument("--streams", type=int, default=8, help="environments that the rows come from")
    parser.add_argument("--batch", type=int, help="items of a batch (sequences 64, transitions 256)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each timing, warm-up not counted")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--turns", action="store_true", help="one round for each line of stdin")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(system: str, stores: dict[str, Store], parser: argparse.ArgumentParser) -> None:
    """Parse the flags, set up the task's store, and print one JSON line for each round.

    Args:
        system: name of what is measured.
        stores: how to set up each task that it can do.
        parser: of `flags`, perhaps with more.
    """
    arguments = parser.parse_args()
    if arguments.task not in stores:
        parser.error(f"{system} does not do {arguments.task}: it does {', '.join(stores)}")
    small = arguments.task == "transitions"
    arguments.rows = arguments.rows or (100_000 if small else 65_536)
    arguments.batch = arguments.batch or (256 if small else 64)
    keys = ("task", "select", "offsets", "grain", "frames", "rows", "batch")
    facts = {"system": system} | {key: getattr(arguments, key) for key in keys}
    began = time.perf_counter()
    try:
        with stores[arguments.task](arguments) as measure:
            if arguments.turns:
                print(json.dumps({"ready": True, "setup_seconds": round(time.perf_counter() - began, 1)}), flush=True)
            for _ in sys.stdin if arguments.turns else range(arguments.rounds):
                numbers = {key: float(f"{value:.5g}") for key, value in measure().items()}
                print(json.dumps(facts | numbers), flush=True)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # A library's threads may keep a failed process from ending (Reverb's writers do).


def speed(step: Callable[[], int], seconds: float, *, finish: Callable[[], object] = lambda: None) -> float:
    """Items a second of a step that is called again and again.

    Args:
        step: does some and returns how many items.
        seconds: to go on for after the warm-up.
        finish: waits until everything that was begun is done; its time counts.
    """
    warm = time.perf_counter() + WARM_UP
    while time.perf_counter() < warm:
        step()
    finish()
    began, items = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        items += step()
    finish()
    return items / (time.perf_counter() - began)


class Feeder:
    """Inserts in another process or thread, at a rate that can be changed.

    Args:
        inserter: called there once with `arguments`; returns the step, which inserts and returns how many items.
        arguments: for `inserter`; picklable for a process, which is spawned.
        thread: a thread of this process instead of a process.
    """

    def __init__(self, inserter: Callable[..., Callable[[], int]], *arguments: object, thread: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._rate, self._items, self._ready = context.Value(c_double, 0.0), context.Value(c_int64, 0), context.Event()
        everything = (inserter, arguments, self._rate, self._items, self._ready)
        kind = threading.Thread if thread else context.Process
        self._worker = kind(target=_feed, args=everything, daemon=True)
        self._worker.start()
        while not self._ready.wait(1):
            if not self._worker.is_alive():
                raise SystemExit("the process that inserts ended before it was ready")

    @contextmanager
    def inserting(self, rate: float) -> Iterator[Callable[[], int]]:
        """Insert at a rate (items a second, or FLAT_OUT) meanwhile; yields a counter of the items inserted so far."""
        self._rate.value = rate
        try:
            yield lambda: int(self._items.value)
        finally:
            self._rate.value = 0.0

    def __enter__(self) -> "Feeder":
        return self

    def __exit__(self, *error: object) -> None:
        self._rate.value = STOP
        self._worker.join(30)


def _feed(inserter: Callable, arguments: tuple, rate: object, items: object, ready: object) -> None:
    step = inserter(*arguments)
    step()
    ready.set()
    due, parent = time.perf_counter(), multiprocessing.parent_process()
    while rate.value != STOP and (parent is None or parent.is_alive()):
        if rate.value == 0.0:
            time.sleep(0.01)
            due = time.perf_counter()
            continue
        done = step()
        items.value += done
        if rate.value > 0:
            due = max(due + done / rate.value, time.perf_counter() - 0.5)
            time.sleep(max(due - time.perf_counter(), 0.0))


def mixed(step: Callable[[], int], seconds: float, feeder: Feeder) -> dict[str, float]:
    """Speeds of sampling alone, beside inserting at PACE items a second, and beside inserting flat out."""
    numbers = {"idle_per_second": speed(step, seconds)}
    for name, rate in (("paced", PACE), ("flat", FLAT_OUT)):
        with feeder.inserting(rate) as inserted:
            # The warm-up of `speed` inserts too, so both are counted over its whole time.
            began, before = time.perf_counter(), inserted()
            numbers[f"{name}_per_second"] = speed(step, seconds)
            numbers[f"{name}_inserts_per_second"] = (inserted() - before) / (time.perf_counter() - began)
        numbers[f"{name}_ratio"] = numbers[f"{name}_per_second"] / numbers["idle_per_second"]
    return numbers
