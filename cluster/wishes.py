"""What somebody wishes of a run's actors, and what the run says to it: a file each, for who looks at a run, too."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from cluster.run_folder import RunFolder, RunFolderError
from cluster.whole_file import replace_text

WISH, ANSWER = "scale.json", "scaled.json"

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Wish:
    """What somebody wishes.

    Attributes:
        actors: how many.
        asked: when, in seconds since 1970; tells it from other wishes.
    """

    actors: int
    asked: float


@dataclass(frozen=True)
class Answer:
    """What the run says.

    Attributes:
        actors: that it has.
        asked: of the wish.
        state: whether it came true.
        why: what it waits for, or why it cannot be.
    """

    actors: int
    asked: float
    state: Literal["waits", "done", "refused"]
    why: str = ""


class Wishes:
    """The last wish for actors of a run, and the run's answer.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._wish, self._answer = folder.path / WISH, folder.path / ANSWER

    def wish(self) -> Wish | None:
        """The last one; None: there is none."""
        return _read(self._wish, Wish)

    def answer(self) -> Answer | None:
        """The last one; None: there is none."""
        return _read(self._answer, Answer)

    def pending(self) -> Wish | None:
        """A wish that has neither come true nor been refused."""
        wish, answer = self.wish(), self.answer()
        settled = wish is None or (answer is not None and answer.asked == wish.asked and answer.state != "waits")
        return None if settled else wish

    def written(self) -> int:
        """When the last wish was written, to tell it from others; 0: never."""
        try:
            return self._wish.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def ask(self, actors: int) -> Wish:
        """Wish for so many actors."""
        wish = Wish(actors, time.time())
        replace_text(self._wish, json.dumps(asdict(wish)))
        return wish

    def reply(self, answer: Answer) -> None:
        """Write down what the run says."""
        replace_text(self._answer, json.dumps(asdict(answer)))

    def sentence(self) -> str:
        """What there is to say of a wish that is pending; "": nothing."""
        wish, answer = self.pending(), self.answer()
        if wish is None:
            return ""
        why = answer.why if answer is not None and answer.asked == wish.asked else ""
        return f"to have {wish.actors} actors" + f": {why}" * bool(why)


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        return kind(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): remove it") from error
