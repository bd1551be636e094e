"""Where a run's numbers go beside its own folder: to places that a run can do without."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from cluster.experiment import ExperimentError
from cluster.run_folder import RunFolder
from cluster.sweep_folder import FILE
from cluster.trackio_writer import TrackioWriter
from cluster.wandb_writer import WandbWriter
from cluster.whole_file import replace_text

Service = Literal["wandb", "trackio"]

SERVICES: Mapping[Service, type[WandbWriter] | type[TrackioWriter]] = {"wandb": WandbWriter, "trackio": TrackioWriter}


def check_services(services: Iterable[Service]) -> None:
    """Find out before anything is learned whether their packages are there.

    Raises:
        MissingExtra: one is not.
    """
    for service in services:
        SERVICES[service].package()


def described(folder: RunFolder) -> dict[str, Any]:
    """What services are told of a run: every argument of the recipe, defaults too, and with what it was run."""
    experiment = folder.load_experiment()
    return {**experiment.get("parameters", {}), **{name: experiment.get(name) for name in ("commit", "versions")}}


@runtime_checkable
class ScalarWriter(Protocol):
    """One place: `cluster.events.Events` is another."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one moment by tag, at so many env steps."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Elsewhere:
    """Writers that a run can do without: one that fails is named once and gets nothing more.

    Args:
        say: how that is told.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._writers: dict[str, ScalarWriter] = {}

    def add(self, name: str, writer: ScalarWriter) -> None:
        """Write to it from now on."""
        self._writers[name] = writer

    def start(self, service: Service, folder: RunFolder, *, resume: bool) -> None:
        """Write to a service, too.

        Args:
            service: which.
            folder: of the run.
            resume: continue what an earlier start of the run wrote. If it fails then, the run goes on without it: who
                continues a run by night has chosen the service long ago.

        Raises:
            ExperimentError: a new run's service does not start.
        """
        try:
            path = folder.path.resolve()
            group = path.parent.name if (path.parent / FILE).exists() else None
            identity = _identity(path / f"{service}-id.txt")
            writer = SERVICES[service](path, described(folder), identity=identity, group=group, resume=resume)
            self.add(service, writer)
        except Exception as error:
            text = f"{service} did not start ({type(error).__name__}: {error})"
            if not resume:
                raise ExperimentError(f"{text}: mend that, or leave out --run.writers {service}") from error
            self._say(f"{text}; the run goes on without it")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on the numbers of one moment, without the group "facts"."""
        shown = {tag: float(value) for tag, value in values.items() if not tag.startswith("facts/")}
        for name, writer in list(self._writers.items()):
            self._tried(name, partial(writer.scalars, step, shown))

    def __enter__(self) -> "Elsewhere":
        return self

    def __exit__(self, *error: object) -> None:
        for name, writer in list(self._writers.items()):
            self._tried(name, writer.close)

    def _tried(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is: the run's own files have the numbers
            del self._writers[name]
            self._say(f"{name} failed ({type(error).__name__}: {error}); the run goes on without it")


def _identity(file: Path) -> str:
    """The same for every start of a run."""
    if not file.exists():
        replace_text(file, secrets.token_hex(4))
    return file.read_text()
