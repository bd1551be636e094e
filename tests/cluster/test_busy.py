"""How busy a process and a machine are."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from cluster.busy import BusyLoop, Cores


def shares(*rounds) -> list[float]:
    """What a loop says after each of some coroutines."""

    async def asked() -> list[float]:
        busy, found = BusyLoop(), []
        busy.share()
        for work in rounds:
            await work()
            found.append(busy.share())
        return found

    return asyncio.run(asked())


async def idle() -> None:
    await asyncio.sleep(0.5)


async def blocked() -> None:
    """A call in which nobody else gets to run, though it uses no processor: it is starved."""
    await asyncio.sleep(0.05)
    time.sleep(0.4)
    await asyncio.sleep(0.05)


async def computing() -> None:
    """Calls that are short, and one after another."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        sum(range(1000))
        await asyncio.sleep(0)


def test_a_loop_that_idles_is_not_busy_and_one_that_computes_or_is_kept_from_running_is() -> None:
    rests, starves, works, rests_again = shares(idle, blocked, computing, idle)
    assert rests < 0.5 and rests_again < 0.5
    assert starves > 0.6 and works > 0.6, "whether or not others want the processor, too"


def counters(path: Path, *ticks: tuple[int, int]) -> None:
    """User and idle ticks of each processor, the last four of which count guests twice."""
    lines = [f"cpu{number} {user} 0 0 {idle} 0 0 0 0 999 999" for number, (user, idle) in enumerate(ticks)]
    path.write_text("\n".join(["cpu  1 1 1 1 1 1 1 1 1 1", *lines, "intr 7 7"]) + "\n")


def test_only_the_cores_that_are_ours_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("cluster.busy.time.monotonic", lambda: now[0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    counters(tmp_path / "stat", (0, 0), (0, 0), (0, 0))
    cores = Cores(tmp_path / "stat")
    counters(tmp_path / "stat", (75, 25), (0, 100), (100, 0))
    assert cores.share() is None, "too early"
    now[0] = 1.0
    assert cores.share() == pytest.approx(175 / 200)
    counters(tmp_path / "stat", (75, 125), (0, 100), (100, 100))
    now[0] = 1.5
    assert cores.share() == pytest.approx(175 / 200), "as a moment ago"
    now[0] = 2.5
    assert cores.share() == 0.0


def test_this_machine_has_such_counters() -> None:
    cores = Cores()
    time.sleep(1.1)
    share = cores.share()
    assert share is not None and 0 <= share <= 1
