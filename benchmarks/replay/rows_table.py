"""Tables of `benchmarks.replay.rows`: what each stage takes, how many bytes it moves, what copying costs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replay.sampler import ADDED

STAGES = ("write", "commit", "draw", "gather")
ADDED_BYTES = 8 * len(ADDED)
"""Of a window in a batch, beside its rows."""


@dataclass(frozen=True)
class Size:
    """What passes.

    Attributes:
        kind: of rows.
        streams: of a block.
        rows: of each stream in a block.
        row_bytes: of a row.
        commit: bytes of a block's message to the shard, pickled.
        draw: bytes of the shard's answer about a batch, pickled.
    """

    kind: str
    streams: int
    rows: int
    row_bytes: int
    commit: int = 0
    draw: int = 0

    @property
    def moved(self) -> dict[str, float]:
        """Bytes that a stage has to move for each row: they are its floor.

        A commit writes the open row of every stream, and a window has one row more than its block, which is the first
        of the next.
        """
        block = self.streams * self.rows
        return {
            "write": float(self.row_bytes),
            "commit": self.row_bytes / self.rows + self.commit / block,
            "draw": self.draw / block,
            "gather": self.row_bytes * (1 + 1 / self.rows) + ADDED_BYTES / self.rows,
        }


@dataclass(frozen=True)
class Round:
    """One case once, in microseconds a row.

    Attributes:
        stages: of the thread that writes and reads, by stage.
        memcpy: of a copy of the row's bytes.
        processor: of this process.
        shard: of the processor, in the shard's process; None: it has none.
    """

    stages: Mapping[str, float]
    memcpy: float
    processor: float
    shard: float | None


def summary(size: Size, rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """By stage, and of the whole way ("all"): "us" a row, and "times" a copy of the row's bytes, medians over rounds.

    Beside them "bytes" that are moved for a row, and the "floor": these beside the row's own.
    """
    told = {}
    for stage, moved in (size.moved | {"all": sum(size.moved.values())}).items():
        taken = [sum(one.stages.values()) if stage == "all" else one.stages[stage] for one in rounds]
        told[stage] = {
            "us": statistics.median(taken),
            "times": statistics.median(us / one.memcpy for us, one in zip(taken, rounds, strict=True)),
            "bytes": moved,
            "floor": moved / size.row_bytes,
        }
    return told


def markdown(results: Sequence[tuple[Size, str, Sequence[Round]]]) -> str:
    """A table for each kind of rows and length of blocks: ways below one another, stages side by side."""
    parts = []
    for size in dict.fromkeys(_bare(size) for size, _, _ in results):
        mine = [(each, way, rounds) for each, way, rounds in results if _bare(each) == size]
        parts.append(_table(mine))
    return "\n\n".join(parts)


def _bare(size: Size) -> tuple[str, int]:
    return size.kind, size.rows


def _table(results: Sequence[tuple[Size, str, Sequence[Round]]]) -> str:
    size, _, rounds = results[0]
    copy = statistics.median(one.memcpy for one in rounds)
    lines = [
        f"**{size.kind}, {size.streams} streams x {size.rows} rows**: {size.row_bytes:,} bytes a row, whose `memcpy` "
        f"takes {copy:.3g} us ({size.row_bytes / copy / 1000:.1f} GB/s)",
        "",
        "| us a row (x `memcpy` of the row) | write | commit | draw | gather | all | processor, here + shard |",
        "|---|" + "--:|" * 6,
    ]
    for each, way, found in results:
        told = summary(each, found)
        cells = [f"{_figure(told[stage]['us'])} ({_figure(told[stage]['times'])}x)" for stage in (*STAGES, "all")]
        shard = [one.shard for one in found if one.shard is not None]
        used = _figure(statistics.median(one.processor for one in found))
        used += f" + {_figure(statistics.median(shard))}" if shard else ""
        lines.append(f"| {way} | {' | '.join(cells)} | {used} |")
    told = summary(size, rounds)
    moved = [f"{stage['bytes']:,.1f} ({stage['floor']:.2f}x)" for stage in told.values()]
    lines.append(f"| floor: bytes to move (x those of the row) | {' | '.join(moved)} | |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    """Two digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
