"""A trained policy to act with, outside of any run."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from learners import checkpoint
from learners.description import Description
from learners.exported import ExportedPolicy, load_exported, load_weights
from learners.policy import ModelPolicy

DESCRIPTION = "policy"
"""Where a run's `experiment.json` has the description of its policy."""


class PolicyError(ValueError):
    """A policy that is not where it was looked for, or an observation that it cannot read: says what was wanted."""


class Policy:
    """Acts as a run learned to, for one environment or for n side by side; it needs neither Ray nor the run's recipe.

    It remembers what the network needs of the past, stacks of frames and the state of a recurrent core, from one call
    to the next; `reset` says where an episode ended.

    Attributes:
        description: what was loaded: the model, the observation's columns, the action space, and facts.
    """

    def __init__(self, acting: ModelPolicy | ExportedPolicy, description: Description, *, seed: int = 0) -> None:
        self.description = description
        self._acting, self._rng = acting, np.random.default_rng(seed)
        self._state: Any = None
        self._first = np.ones(0, np.bool_)

    @classmethod
    def load(cls, path: str | Path, *, seed: int = 0) -> "Policy":
        """The policy of a run, of one of its checkpoints, or of an exported file.

        Args:
            path: a run's folder, whose newest checkpoint is taken; a checkpoint's folder in it; or a .safetensors, .pt2
                or .onnx file that `contrail export` made.
            seed: of the actions that are sampled.

        Raises:
            PolicyError: there is no policy.
            DescriptionError: it cannot be built again.
            CheckpointError, ExportError: its file is damaged.
            MissingExtra: an .onnx file, and onnxruntime is not installed.
        """
        path = Path(path)
        if path.suffix in (".pt2", ".onnx") and path.is_file():
            exported = load_exported(path)
            return cls(exported, exported.description, seed=seed)
        if path.suffix == ".safetensors" and path.is_file():
            description, weights = load_weights(path)
        else:
            description, weights = _from_checkpoint(_checkpoint(path))
        return cls(_acting(description, weights, path), description, seed=seed)

    @property
    def action_space(self) -> gym.Space:
        """Of one environment."""
        return self.description.action_space

    def act(self, observation: Any, *, greedy: bool = True) -> Any:
        """The action for an observation, or the actions for n of them.

        Args:
            observation: as the environment gives it, an array or a dict; or n of them, with an axis in front.
            greedy: the likeliest action instead of a sampled one.

        Returns:
            In the action space, of the type that it has; with an axis in front if the observation has one. A continuous
            action is limited to the space's bounds.

        Raises:
            PolicyError: the observation has another shape or dtype than in training, or is not of as many environments
                as in the call before.
        """
        columns, single = self._columns(observation)
        count = len(next(iter(columns.values())))
        if self._state is None:
            self._state, self._first = self._acting.initial_state(count), np.ones(count, np.bool_)
        if len(self._first) != count:
            raise PolicyError(f"{count} observations after {len(self._first)}: call reset() before another number")
        rows, self._state = self._acting.act(columns, self._state, self._first, self._rng, greedy=greedy)
        self._first = np.zeros(count, np.bool_)
        action = self._in_space(rows["action"])
        return action[0] if single else action

    def reset(self, where: np.ndarray | Iterable[bool] | None = None) -> None:
        """Forget the past: the next observation is an episode's first.

        Args:
            where: of which of the n environments; None: of all, and of how many there were.

        Raises:
            PolicyError: it is not one flag for each environment.
        """
        if where is None or self._state is None:
            self._state = None
            return
        flags = np.asarray(list(where), np.bool_)
        if flags.shape != self._first.shape:
            raise PolicyError(f"reset got {flags.size} flags, wanted one for each of {len(self._first)} environments")
        self._first |= flags

    def _columns(self, observation: Any) -> tuple[dict[str, np.ndarray], bool]:
        """The observation's columns (n, ...), and whether it was one observation alone."""
        given = _flattened(observation, "observation")
        wanted = self.description.observation
        if given.keys() != wanted.keys():
            raise PolicyError(f"the observation has {sorted(given)}, wanted {sorted(wanted)}")
        columns, singles = {}, set[bool]()
        for name, column in wanted.items():
            value, dtype = np.asarray(given[name]), np.dtype(column.dtype)
            single = value.shape == column.shape
            if not single and value.shape[1:] != column.shape:
                n_of_them = ", ".join(["n", *map(str, column.shape)])
                raise PolicyError(f"{name} has shape {value.shape}, wanted {column.shape} or ({n_of_them})")
            if not (value.dtype == np.bool_ or np.can_cast(value.dtype, dtype, "same_kind")):
                raise PolicyError(f"{name} is {value.dtype}, wanted {dtype}")
            columns[name] = np.ascontiguousarray(value[None] if single else value, dtype)
            singles.add(single)
        if len(singles) > 1 or len({len(value) for value in columns.values()}) > 1:
            raise PolicyError(f"the parts of the observation are of different numbers of environments: {sorted(given)}")
        return columns, singles.pop()

    def _in_space(self, action: np.ndarray) -> np.ndarray:
        space = self.action_space
        if isinstance(space, gym.spaces.Box):
            action = np.clip(action, space.low, space.high)
        return action.astype(space.dtype, copy=False)


def describe_run(folder: Path) -> Description:
    """The description of a run's policy, as training left it in `experiment.json`.

    Raises:
        PolicyError: it has none.
        DescriptionError: it cannot be followed.
    """
    file = folder / "experiment.json"
    try:
        described = json.loads(file.read_text()).get(DESCRIPTION)
    except (OSError, ValueError, AttributeError) as error:
        raise PolicyError(f"{file} cannot be read ({error})") from error
    if not isinstance(described, dict) or "model" not in described:
        why = described if isinstance(described, str) else "it is of an earlier version"
        raise PolicyError(
            f"{folder} does not describe its policy ({why}): load what `contrail export {folder} --format pt2` writes"
        )
    return Description.from_json(json.dumps(described), where=str(file))


def _checkpoint(path: Path) -> Path:
    """The folder of the checkpoint that a path stands for."""
    if (path / "values.json").is_file():
        return path
    if (path / "experiment.json").is_file():
        found = sorted(p for p in (path / "checkpoints").glob("*") if re.fullmatch(r"\d{12}", p.name))
        if not found:
            raise PolicyError(f"{path} has no checkpoint yet")
        return found[-1]
    if not path.exists():
        raise PolicyError(f"there is no {path}")
    raise PolicyError(f"{path} is no run, no checkpoint, and no .safetensors, .pt2 or .onnx file")


def _from_checkpoint(folder: Path) -> tuple[Description, dict[str, np.ndarray]]:
    run = folder.resolve().parent.parent
    if not (run / "experiment.json").is_file():
        raise PolicyError(f"{folder} is not in its run's folder, which describes the policy: export it there")
    tensors, _ = checkpoint.load(folder)
    own = {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}
    return describe_run(run), {name: tensor.numpy() for name, tensor in own.items()}


def _acting(description: Description, weights: Mapping[str, np.ndarray], path: Path) -> ModelPolicy:
    model = description.build()
    own = model.state_dict()
    try:
        model.load_acting_weights({name: weights[name] for name in own})
    except (KeyError, RuntimeError) as error:
        raise PolicyError(f"{path}: the weights do not fit the model ({' '.join(str(error).split())})") from error
    return ModelPolicy(model)


def _flattened(value: Any, name: str) -> dict[str, Any]:
    """An observation's columns by name, as rows have them."""
    if not isinstance(value, Mapping):
        return {name: value}
    parts = [_flattened(part, f"{name}.{key}") for key, part in value.items()]
    return {key: array for part in parts for key, array in part.items()}
