"""What costs were measured of: a plan is only of the same recipe, with the same flags."""

from collections.abc import Mapping
from pathlib import Path

from cluster.experiment import ExperimentError
from cluster.parsing import Parameters, parsed, recorded
from cluster.run_folder import RunFolder

VARIED = {"envs", "steps", "seed"}
VARIED |= {f"topology.{name}" for name in ("actors", "learners", "shards", "max_version_lag", "local", "address")}
"""What may differ: a model knows of it, or it costs nothing."""


def parameters(recipe: str, flags: list[str]) -> Parameters:
    """Recipe and flags on which costs depend, by name, defaults among them."""
    source, _, name = recipe.partition(":")
    found = parsed(recipe, flags)[2]
    if Path(source).suffix == ".py":  # as a run records it
        found["recipe"] = f"{Path(source).resolve()}:{name}"
    return {name: value for name, value in found.items() if name not in VARIED}


def recorded_parameters(run: Path) -> Parameters:
    """Those of a run.

    Raises:
        RunFolderError: there is no such run, or its description is damaged.
    """
    folder = RunFolder.open(run)
    recipe, _, _ = recorded(folder)
    return parameters(recipe, folder.load_experiment()["arguments"])


def refuse_others(source: Path, measured: Mapping[str, object], planned: Mapping[str, object]) -> None:
    """Look that costs are of what is planned, as far as it is known of them.

    Raises:
        ExperimentError: they are of another recipe, or of other flags.
    """
    if measured.get("recipe", planned["recipe"]) != planned["recipe"]:
        names: list[str] = ["recipe"]  # flags of another recipe mean something else
    else:
        names = [name for name in planned if name in measured and measured[name] != planned[name]]
    if names:
        raise ExperimentError(
            f"{source} was measured with {_told(names, measured)}, but the plan has {_told(names, planned)}: "
            "plan what was measured, or leave out --from to measure anew"
        )


def _told(names: list[str], values: Mapping[str, object]) -> str:
    flags = (f"--{name.replace('_', '-')}" if name != "recipe" else name for name in names)
    return ", ".join(f"{flag} {values[name]}" for flag, name in zip(flags, names, strict=True))
