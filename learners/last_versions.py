"""The last two versions of a learner's state, in shared memory, where they outlive its process."""

import json
import logging
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from learners.checkpoint import CheckpointError
from replay.segment import FULL

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name and plain values, as `Learner.state` returns them."""

VERSION, VALUES = "version", "values"
"""What a file holds beside the tensors: one int64, and JSON with spaces after it."""

BEING_WRITTEN = -1
PAGE = 4096


class LastVersions:
    """The newest version of one rank's whole state and the one before: what its replacement goes on from.

    Two files, of even and of odd versions. Version v is written over version v - 2, so a death at any instant leaves
    v - 1 whole. That is enough for all ranks: one that has written v + 1 has finished step v with all others, so each
    has written v, and the newest version that every rank has written is there on every rank. All go on from that one.

    The learner writes; its replacement reads, once it is dead. The folder belongs to whoever gave it, who removes it
    at the end of the run; this class removes files of its own rank only. They survive the process, not the machine:
    checkpoints are for that. Whoever writes without `take_up` begins anew, and what was there is gone. The files are
    in the safetensors format.

    Args:
        folder: in shared memory; there already.
        rank: of the learner.

    Attributes:
        full: there was no room; nothing is there, and nothing is written any more.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.full = False
        self._paths = [folder / f"learner-{rank}.{parity}.safetensors" for parity in ("even", "odd")]
        self._files: dict[Path, _MappedFile] = {}
        self._newest: int | None = None

    def versions(self) -> list[int]:
        """The versions that are there, whole, in order; none where nothing was written.

        Raises:
            CheckpointError: a file is damaged, or is none of ours.
        """
        return sorted(version for path in self._paths if (version := _version(path)) != BEING_WRITTEN)

    def read(self, version: int) -> State:
        """A version that is there, as `Learner.restore` takes it; copies.

        Raises:
            CheckpointError: it is not there, or its file is damaged.
        """
        path = self._paths[version % 2]
        if (found := _version(path)) != version:
            there = "nothing whole" if found == BEING_WRITTEN else f"version {found}"
            raise CheckpointError(f"{path} holds {there}, wanted version {version}: ask for one of versions()")
        try:
            tensors = load(path.read_bytes())
            values = json.loads(bytes(tensors.pop(VALUES).numpy()))
        except (SafetensorError, KeyError, ValueError) as error:
            raise _damaged(path, error) from error
        del tensors[VERSION]
        return tensors, values

    def take_up(self, version: int) -> State:
        """`read`, and go on from there: a newer version is forgotten, since its step is made again.

        Made again on a GPU it may differ in its last bits, and two ranks must never go on from different ones.

        Raises:
            CheckpointError: it is not there, or its file is damaged.
        """
        state = self.read(version)
        self._paths[1 - version % 2].unlink(missing_ok=True)
        self._files.clear()
        self._newest = version
        return state

    def write(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take over a state, before anybody hears of its version; what was just taken up is there already.

        Where there is no room it says so in the log, once, and the learner goes on without.

        Args:
            tensors: by name, on any device.
            values: what JSON can hold, `version` among them.
        """
        version = int(values[VERSION])
        if self.full or version == self._newest:
            return
        if self._newest is None:
            self.remove()
        path, text = self._paths[version % 2], json.dumps(values).encode()
        file = self._files.get(path)
        if file is None or not file.fits(tensors, text):
            file = self._make(path, tensors, text)
        if file is not None:
            file.write(version, tensors, text)
            self._newest = version

    def _make(self, path: Path, tensors: Mapping[str, Tensor], text: bytes) -> "_MappedFile | None":
        """Another file for this layout: optimisers have no state before their first step. None: there is no room."""
        # Version v - 2, which nobody wants any more, goes first: room for two is enough.
        path.unlink(missing_ok=True)
        partial = path.with_suffix(".partial")
        try:
            # Every byte by an ordinary write, which reports a full disk: a mapped hole would kill with SIGBUS later.
            partial.write_bytes(_emptied(tensors, text))
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise
            self._give_up(error)
            return None
        self._files[path] = _MappedFile(partial, tensors)
        partial.replace(path)
        return self._files[path]

    def _give_up(self, error: OSError) -> None:
        """Old versions must go, too: the store forgets the draws that they would go on from."""
        self.full = True
        self.remove()
        logging.getLogger(__name__).warning(
            "no room for this learner's state in %s (%s): should its process die, the run ends and can be resumed from "
            "its newest checkpoint; make shared memory larger (docker run --shm-size, mount -o remount,size=...)",
            self._paths[0].parent,
            error.strerror,
        )

    def remove(self) -> None:
        """Forget all versions."""
        self._files.clear()
        for path in self._paths:
            path.unlink(missing_ok=True)


class _MappedFile:
    """A file of one layout, mapped, and written again in place: that costs a copy of the tensors, and little else.

    Args:
        path: of a file that `_emptied` made.
        tensors: for which it was made.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        with path.open("r+b") as file:
            self._mapping = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        start = 8 + int.from_bytes(self._mapping[:8], "little")
        header = json.loads(self._mapping[8:start])
        spans = {name: slice(*(start + end for end in header[name]["data_offsets"])) for name in header}
        memory = torch.frombuffer(self._mapping, dtype=torch.uint8)
        self._layout = _layout(tensors)
        self._views = [memory[spans[name]].view(t.dtype).view(t.shape) for name, t in tensors.items()]
        self._version = memoryview(self._mapping)[spans[VERSION]].cast("q")
        self._values = spans[VALUES]
        self._room = self._values.stop - self._values.start

    def fits(self, tensors: Mapping[str, Tensor], text: bytes) -> bool:
        """Whether the same tensors are wanted, and there is room for the values."""
        return len(text) <= self._room and _layout(tensors) == self._layout

    def write(self, version: int, tensors: Mapping[str, Tensor], text: bytes) -> None:
        """Replace what is there.

        The process may be killed between any two instructions, but the machine lives on: its kernel keeps the pages,
        and what a killed process had stored is there up to some instruction, and nothing after it. The version is one
        aligned store of 8 bytes before and one after all others, made when every copy has returned; so a version that
        can be read was stored after all that belongs to it. A checksum would tell no more, at several times the cost.
        """
        self._version[0] = BEING_WRITTEN
        torch._foreach_copy_(self._views, [tensor.detach() for tensor in tensors.values()])
        self._mapping[self._values] = text.ljust(self._room)
        self._version[0] = version


def _layout(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]


def _emptied(tensors: Mapping[str, Tensor], text: bytes) -> bytes:
    """A file for such tensors and for values twice as long, which is being written still."""
    zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors.items()}
    room = -(-2 * len(text) // PAGE) * PAGE
    return save({**zeros, VERSION: torch.tensor([BEING_WRITTEN]), VALUES: torch.zeros(room, dtype=torch.uint8)})


def _version(path: Path) -> int:
    """The version in a file; `BEING_WRITTEN` where it is not whole or there is no file."""
    try:
        with safe_open(path, "pt") as file:
            return int(file.get_tensor(VERSION))
    except FileNotFoundError:
        return BEING_WRITTEN
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is damaged, or no learner wrote it ({error}): resume from a checkpoint")
