"""What a probe looks at: episodes of a policy, what its model makes of them, and what is to be read from that."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from actors.environments import Environment, Environments, environment_seeds
from actors.episodes import Episodes
from actors.evaluator import EVALUATOR
from actors.policy import Policy
from learners.frames import stack_windows
from learners.model import Model
from learners.objective import Batch
from learners.policy import ModelPolicy

MOST_CLASSES = 20
"""Whole numbers of more different values than these are taken as numbers, not as classes."""
MOST_PARTS = 8
"""Entries of an `info` array that become variables of their own; longer ones are left out."""
RAW_NUMBERS = 2048
"""Numbers of a raw observation at most: images are averaged over squares until they fit."""

Arrays = dict[str, np.ndarray]


@dataclass
class Rows:
    """Rows of n streams, (n, T, ...).

    Attributes:
        observation: columns, single frames.
        action: what was chosen.
        reward: what came of it.
        step: index inside the episode, int32.
        episode: numbered over all streams.
        decided: where there was a decision; elsewhere there is a final observation.
        ended: where the episode ended with this row's action.
        info: variables by name, NaN where the environment did not say.
        pictures: rendered frames by stream and row.
    """

    observation: Arrays
    action: np.ndarray
    reward: np.ndarray
    step: np.ndarray
    episode: np.ndarray
    decided: np.ndarray
    ended: np.ndarray
    info: Arrays
    pictures: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Variable:
    """Something to be read from a representation.

    Attributes:
        values: (n, T), NaN where it is not known.
        classes: whether it is one of a few; else it is a number.
    """

    values: np.ndarray
    classes: bool


def collect(
    policy: Policy, environment: Environment, *, streams: int, length: int, seed: int, pictured: Collection[int] = ()
) -> Rows:
    """Rows of a policy that samples its actions.

    Args:
        policy: with its weights loaded.
        environment: made anew, and closed in the end.
        streams: environments side by side.
        length: rows of each.
        seed: of the starts and of the policy's randomness.
        pictured: rows at which every environment is rendered; it must be made to render, then.
    """
    environments = environment.make(streams)
    try:
        return _collect(policy, environments, length=length, seed=seed, pictured=pictured)
    finally:
        environments.close()


def _collect(policy: Policy, environments: Environments, *, length: int, seed: int, pictured: Collection[int]) -> Rows:
    count, rng = environments.count, np.random.default_rng([seed, EVALUATOR])
    episodes = Episodes(range(count), gamma=1.0)
    observation = environments.reset(environment_seeds(seed, EVALUATOR, count))
    state, first = policy.initial_state(count), np.ones(count, np.bool_)
    rows: list[Arrays] = []
    infos: list[Arrays] = []
    pictures: dict[tuple[int, int], np.ndarray] = {}
    for t in range(length):
        if t in pictured:
            pictures |= {(slot, t): frame for slot, frame in enumerate(environments.render())}
        # Where an environment has been reset already, its info may still be about the episode before.
        infos.append(
            _info(environments.info, count, known=np.ones(count, np.bool_) if environments.in_step else ~first)
        )
        decision, state = policy.act(observation, state, first, rng)
        step = environments.step(decision["action"])
        ended = step.terminated | step.truncated
        facts = {"step": episodes.step, "episode": episodes.number, "decided": step.decided, "ended": ended}
        rows.append({**observation, "action": decision["action"], "reward": step.reward, **facts})
        episodes.update(step.reward, step.decided, ended)
        if step.final is not None:
            episodes.begin(step.final[0])
        observation, first = step.observation, step.first
    columns = {name: np.stack([row[name] for row in rows], 1) for name in rows[0]}
    seen = {name: columns.pop(name) for name in observation}
    return Rows(seen, info=_over_time(infos, count), pictures=pictures, **columns)


def _info(info: Mapping[str, object], count: int, *, known: np.ndarray) -> Arrays:
    """The numbers in a vector environment's info, (n,) each, NaN where it does not say."""
    found: Arrays = {}
    for name, value in info.items():
        array = np.asarray(value)
        usable = array.dtype.kind in "biuf" and array.shape[:1] == (count,) and array[0].size <= MOST_PARTS
        if name.startswith("_") or not usable:
            continue
        said = np.asarray(info.get(f"_{name}", np.ones(count, np.bool_))) & known
        for index, part in enumerate(array.reshape(count, -1).T):
            key = f"info.{name}" if array.ndim == 1 else f"info.{name}[{index}]"
            found[key] = np.where(said, part.astype(np.float64), np.nan)
    return found


def _over_time(infos: Sequence[Arrays], count: int) -> Arrays:
    unknown = np.full(count, np.nan)
    names = dict.fromkeys(name for info in infos for name in info)
    return {name: np.stack([info.get(name, unknown) for info in infos], 1) for name in names}


def variables(rows: Rows, gamma: float) -> tuple[dict[str, Variable], dict[str, str]]:
    """What can be read from rows: the environment's `info`, reward to go, action, step in the episode.

    Args:
        rows: as collected.
        gamma: discount of the reward to go, which is known in episodes that ended only.

    Returns:
        The variables, and why others are none.
    """
    parts = np.moveaxis(rows.action.reshape(*rows.reward.shape, -1), -1, 0)
    named = {f"action[{i}]" if len(parts) > 1 else "action": part for i, part in enumerate(parts)}
    found = rows.info | {"reward_to_go": reward_to_go(rows, gamma), "step": rows.step, **named}
    kept: dict[str, Variable] = {}
    left: dict[str, str] = {}
    for name, array in found.items():
        values = np.where(rows.decided, array.astype(np.float64), np.nan)
        if why := _useless(values):
            left[name] = why
            continue
        known = np.unique(values[np.isfinite(values)])
        few = len(known) <= MOST_CLASSES and bool((known == np.round(known)).all())
        kept[name] = Variable(values, classes=few and name != "reward_to_go")
    return kept, left


def _useless(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return "it is known nowhere"
    if known.min() == known.max():
        return f"it is always {known[0]:g}"
    streams = [stream[np.isfinite(stream)] for stream in values]
    if all(len(stream) == 0 or stream.min() == stream.max() for stream in streams):
        return "it never changes within an environment"
    return ""


def reward_to_go(rows: Rows, gamma: float) -> np.ndarray:
    """The discounted sum of rewards from each row to its episode's end, (n, T); NaN where the end was not seen."""
    value = np.full(rows.reward.shape, np.nan)
    later = np.full(len(value), np.nan)
    for t in reversed(range(rows.reward.shape[1])):
        # A final observation's row has no reward, and nothing that comes after it belongs to its episode.
        later = np.where(rows.ended[:, t], 0.0, later)
        later = np.where(rows.decided[:, t], rows.reward[:, t] + gamma * later, np.nan)
        value[:, t] = later
    return value


def stream_batch(model: Model, rows: Rows, stream: int) -> Batch:
    """One stream's rows as a model reads them, (1, T, ...), frames stacked, a core's state empty at the start."""
    lead, one = model.stack - 1, slice(stream, stream + 1)
    batch = {name: torch.from_numpy(value[one]) for name, value in rows.observation.items()}
    batch["step"] = torch.from_numpy(rows.step[one])
    for name in model.image_columns:
        frames, step = (torch.cat([x[:, :1]] * lead + [x], 1) for x in (batch[name], batch["step"]))
        batch[name] = stack_windows(frames, step, stack=model.stack, lead=lead)
    if model.core is not None:
        state = torch.from_numpy(ModelPolicy(model).initial_state(1).core)
        batch["core_state"] = state[:, None].expand(1, batch["step"].shape[1], *state.shape[1:])
    return batch


@torch.inference_mode()
def representations(model: Model, rows: Rows) -> dict[str, Tensor]:
    """What a model makes of rows, (n, T, F) each: the encoder's `features`, and the core's `context` if it has one."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("features", "context")[: 1 + (model.core is not None)]}
    for stream in range(len(rows.step)):
        out = model(stream_batch(model, rows, stream))
        for name, parts in found.items():
            parts.append(getattr(out, name))
    return {name: torch.cat(parts) for name, parts in found.items()}


def raw(model: Model, rows: Rows) -> tuple[Tensor, int]:
    """The observation itself, stacked as the model sees it, (n, T, F), and the side of squares that were averaged."""
    shapes = [column.shape for column in model.observation_columns.values()]
    side = next(s for s in range(1, 1000) if sum(_size(shape, s) for shape in shapes) <= RAW_NUMBERS or s == 999)

    def flat(value: Tensor, image: bool) -> Tensor:
        value = value[0].float()
        return (avg_pool2d(value, side, ceil_mode=True) if image and side > 1 else value).reshape(len(value), -1)

    streams = []
    for stream in range(len(rows.step)):
        batch = stream_batch(model, rows, stream)
        parts = [flat(batch[name], name in model.image_columns) for name in model.observation_columns]
        streams.append(torch.cat(parts, 1))
    return torch.stack(streams), side


def _size(shape: tuple[int, ...], side: int) -> int:
    """Numbers of an entry after averaging over squares."""
    if len(shape) != 3:
        return int(np.prod(shape))
    return shape[0] * -(-shape[1] // side) * -(-shape[2] // side)


def shifted(model: Model, rows: Rows, places: np.ndarray, move: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Features of the rows at some places (m, 2), by stream and row, and of the same with their images moved."""
    pairs = []
    with torch.inference_mode():
        for stream in np.unique(places[:, 0]):
            at = torch.from_numpy(places[places[:, 0] == stream, 1])
            batch = stream_batch(model, rows, int(stream))
            columns = {name: batch[name][0, at] for name in model.observation_columns}
            other = columns | {name: move(columns[name]) for name in model.image_columns}
            pairs.append((model.encode(columns), model.encode(other)))
    first, second = zip(*pairs, strict=True)
    return torch.cat(first), torch.cat(second)
