"""Which checkpoints of a run were evaluated, and which of them played best: a file in its folder."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.run_folder import RunFolder, RunFolderError
from cluster.whole_file import replace_text

FILE = "evaluations.json"


@dataclass(frozen=True)
class Standing:
    """How far a run's evaluations are: its `evaluations.json`, replaced in one go, so that it outlives any death.

    Attributes:
        last: name of the checkpoint that is being evaluated, or was last; "": none was yet.
        ended: whether that evaluation has come to its end.
        best: name of the checkpoint with the highest mean return, of equals the first; "": none was evaluated.
        mean_return: of the best.
    """

    last: str = ""
    ended: bool = True
    best: str = ""
    mean_return: float = 0.0

    @classmethod
    def read(cls, folder: RunFolder) -> "Standing":
        """That of a run; checkpoints that somebody removed are neither the best nor to be evaluated.

        Raises:
            RunFolderError: the file is damaged.
        """
        path = folder.path / FILE
        try:
            found = cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"{path} is damaged ({error}): remove it") from error
        there = {checkpoint.name for checkpoint in folder.checkpoints()}
        if found.best not in there:
            found = replace(found, best="", mean_return=0.0)
        if found.last in there:
            return found
        return replace(found, last=min(found.last, max(there, default="")), ended=True)

    def write(self, folder: RunFolder) -> None:
        """Replace the run's."""
        replace_text(folder.path / FILE, json.dumps(asdict(self), indent=1) + "\n")


def best(folder: RunFolder) -> Path:
    """The checkpoint whose evaluation in the run had the highest mean return.

    Raises:
        RunFolderError: none was evaluated; or the file is damaged.
    """
    standing = Standing.read(folder)
    if not standing.best:
        raise RunFolderError(
            f"{folder.path} has no best checkpoint: none that it keeps was evaluated in the run "
            "(--run.evaluate-every does that while it trains)"
        )
    return folder.path_for(int(standing.best))
