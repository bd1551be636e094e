"""Opening a shard with everything that it keeps in files: rows, journal, log of draws."""

import json
import pickle
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from replay import journal
from replay.archive import Archivist, Codec
from replay.archived import archived_commit
from replay.draw_log import DrawLog
from replay.journal import Journal
from replay.messages import SegmentInfo
from replay.recovery import Recorder, recover, reopened
from replay.segment import StoreError
from replay.segment_files import writer_of
from replay.shard import Shard
from replay.table import Table, TableError, watched

SPARED = "spared.json"
"""In a start's folder of journals: archived segments that windows which it took over refer to."""


@dataclass(frozen=True)
class Places:
    """Where the files of a store are.

    Attributes:
        live: folder of the live segments: fast, shared by all processes of a machine.
        kept: folder of what stays: `log` (archived segments, draws) and `journal`.
        start: which start of the run this is, from 0.
        rows: how archived segments are compressed; "none": rows are not kept, nor are draws.
        kept_bytes: of archived segments, over all shards; the oldest leave.
        live_bytes: of live segments, over all shards; see `Shard`.
        given: folder of archived segments that the store begins with, read where they are and never changed; None: it
            begins empty.
    """

    live: Path
    kept: Path
    start: int = 0
    rows: Codec = "none"
    kept_bytes: int | None = None
    live_bytes: int | None = None
    given: Path | None = None

    @property
    def log(self) -> Path:
        """Folder of archived segments and draws."""
        return self.kept / "log"

    def journal(self, start: int) -> Path:
        """Folder of the journals of one start of the run."""
        return self.kept / "journal" / f"{start:03d}"


def open_shard(
    tables: Mapping[str, Table], places: Places, *, shards: int, index: int, seed: int
) -> tuple[Shard, Recorder]:
    """A shard that writes down what it is told: the one of its journal if there is one, else a new one.

    Whoever owns it calls `Recorder.tidy` between two of its calls now and then, and closes the shard, then the
    recorder.

    Raises:
        JournalError: its journal is damaged.
        TableError: as `Shard`.
    """
    with ExitStack() as kept:
        archive, draws = _kept(places, shards, index, kept) if places.rows != "none" else (None, None)
        folder, name = places.journal(places.start), f"shard-{index}"
        shard = recover(folder, name, told=draws.write if draws else None)
        live_bytes = None if places.live_bytes is None else places.live_bytes // shards
        if shard is None:
            shard = Shard(tables, shards=shards, index=index, seed=seed)
            if places.given is not None:
                give(shard, places.given)
        shard.max_bytes = live_bytes
        if draws is not None:
            shard.told = draws.write
        shard.segments.thaw(places.live, archive)
        recorder = Recorder(shard, Journal(folder, name), draws)
        kept.pop_all()  # from now on the shard and the recorder close them
        return shard, recorder


def _kept(places: Places, shards: int, index: int, kept: ExitStack) -> tuple[Archivist, DrawLog]:
    """Archive and log of draws, closed if opening the shard fails."""
    archive = Archivist(places.log, places.rows, places.kept_bytes, spared=_spared(places))
    kept.callback(archive.close)
    # Draws may take a quarter of what rows may, shared by the shards.
    most = None if places.kept_bytes is None else places.kept_bytes // 4 // shards
    draws = DrawLog(places.log, start=places.start, shard=index, max_bytes=most)
    kept.callback(draws.close)
    return archive, draws


def _spared(places: Places) -> frozenset[str]:
    """Archived segments that windows of this start refer to, and that must not expire."""
    try:
        return frozenset(json.loads((places.journal(places.start) / SPARED).read_text()))
    except FileNotFoundError:
        return frozenset()


def log_of(store: Path) -> Path:
    """The folder of archived segments of a run, or of a store that was imported.

    Raises:
        StoreError: there is none.
    """
    for folder in (store / "replay" / "log", store / "log"):
        if folder.is_dir():
            return folder
    raise StoreError(
        f"{store} holds no archived rows: give a run that keeps them (--run.rows lz4), or an imported store"
    )


def give(shard: Shard, folder: Path) -> None:
    """Let a new shard begin with its part of archived rows: writers in turn, one shard after another.

    Raises:
        TableError: a table cannot draw from so few rows, and nobody adds any.
    """
    paths = sorted(folder.glob("*.arrow"))
    writers = sorted({writer_of(path) for path in paths})
    if len(writers) < shard.shards:
        raise TableError(f"{folder} holds rows of {len(writers)} writers for {shard.shards} shards: lower the shards")
    for writer in writers[shard.index :: shard.shards]:
        mine = [path for path in paths if writer_of(path) == writer]
        shard.commit(archived_commit(writer, mine, watched(shard.tables)))
        shard.retire(writer)
    if missing := shard.missing(0):
        raise TableError(f"{folder}: {missing}, and no actor adds any: make the batch smaller, or import more rows")


def next_start(kept: Path) -> int:
    """The number of a run's next start, by the journals of those before."""
    return 1 + max((int(path.name) for path in (kept / "journal").glob("[0-9]*")), default=-1)


def prepare_restart(tables: Mapping[str, Table], places: Places, *, shards: int, seed: int, version: int) -> bool:
    """Let the shards of a new start begin with what the last ones held when `version` draws had been formed.

    Run before any shard is opened, while nobody else uses the store.

    Returns:
        Whether there was anything to go on with.

    Raises:
        JournalError: a journal is damaged.
        TableError: a table reads other windows than it did.
    """
    formers = _formers(places, version)
    if not formers:
        return False
    fresh = reopened(formers, tables, shards=shards, seed=seed, locate=lambda segment: _located(segment, places))
    for shard in fresh:
        target = Journal(places.journal(places.start), f"shard-{shard.index}")
        target.begin(version, pickle.dumps(shard, protocol=5))
        target.close()
    kept = [s for shard in fresh for ledger in shard.segments.ledgers.values() for s in ledger.segments.values()]
    spared = [Path(segment.path).name for segment in kept if segment.archived]
    (places.journal(places.start) / SPARED).write_text(json.dumps(spared))
    return True


def _formers(places: Places, version: int) -> list[Shard]:
    """The shards of the newest start that goes back to a version."""
    for start in range(places.start - 1, -1, -1):
        found = [_former(places, start, name, version) for name in journal.names(places.journal(start))]
        shards = [shard for shard in found if shard is not None]
        # A restart that was itself cut short has written some of its shards only.
        if shards and len(shards) == len(found) == shards[0].shards:
            return shards
    return []


def _former(places: Places, start: int, name: str, version: int) -> Shard | None:
    """A shard as it was at a version; what its death kept from the log of draws, up to there, is in it now."""
    if places.rows == "none":
        return recover(places.journal(start), name, until=version)
    with closing(DrawLog(places.log, start=start, shard=int(name.removeprefix("shard-")))) as draws:
        return recover(places.journal(start), name, until=version, told=draws.write)


def _located(segment: SegmentInfo, places: Places) -> SegmentInfo | None:
    """Where a segment is now: live if its folder outlived the run, else archived."""
    name = Path(segment.path).name
    places_of = [(places.live / name, False), (places.log / name, True)]
    if places.given is not None:
        places_of.append((places.given / name, True))
    for path, archived in places_of:
        if path.exists():
            return SegmentInfo(segment.index, str(path), 0 if archived else path.stat().st_size, archived)
    return None
