"""The acting face of a model: what an actor calls to choose actions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from learners.behaviour import recorded
from learners.distributions import Distribution
from learners.frames import FrameStack
from learners.handful import Handful
from learners.model import Model
from replay.schema import Column


@dataclass
class ActingState:
    """What a policy remembers of n streams between rows: frames of each image column, and the core's state (n, S)."""

    frames: dict[str, FrameStack]
    core: np.ndarray


@torch.inference_mode()
def recorded_columns(model: Model) -> dict[str, Column]:
    """What a policy records beside action and log_prob.

    That is `value`; with a core its state before the row, `core_state`; and the parameters of the distribution that the
    action was drawn from ("policy_logits") where the model's description asks for them.
    """
    columns = {"value": Column("float32")}
    if model.core is not None:
        columns["core_state"] = Column("float32", (model.core.state,))
    if model.spec.record_distribution:
        rows = recorded(model.policy(torch.zeros(1, model.context)))
        columns |= {name: Column("float32", tuple(value.shape[1:])) for name, value in rows.items()}
    return columns


class ModelPolicy:
    """Chooses actions for n streams at once with the newest weights it was given (`actors.policy.Policy`).

    Records `log_prob` and `value`; with a recurrent core also `core_state`, the state *before* the row, so that the
    learner can start a window anywhere; with `record_distribution` what it drew the action from.
    """

    def __init__(self, model: Model) -> None:
        self.model = model.eval().requires_grad_(False)
        if model.precision == "bf16":
            _keep_in_bf16(model)
        self.version = -1
        self._handful = Handful.of(self.model)
        self.extras = recorded_columns(self.model)

    def initial_state(self, n: int) -> ActingState:
        """Nothing seen yet."""
        frames = {name: FrameStack(self.model.stack) for name in self.model.image_columns}
        return ActingState(frames, np.zeros((n, self.model.core.state if self.model.core else 0), np.float32))

    @torch.inference_mode()
    def act(
        self,
        observation: Mapping[str, np.ndarray],
        state: ActingState,
        first: np.ndarray,
        rng: np.random.Generator,
        *,
        greedy: bool = False,
    ) -> tuple[dict[str, np.ndarray], ActingState]:
        """Actions for n streams, with the columns to record.

        Args:
            observation: columns (n, ...), single frames.
            state: what the previous call returned; its frames are updated in place.
            first: whether a stream's observation is its episode's first, (n,).
            rng: where all randomness comes from.
            greedy: the distribution's mode instead of a sample.
        """
        if self._handful is not None:
            return self._columns(*self._by_numpy(self._handful, observation), rng, greedy=greedy), state
        out = self.model(self._batch(observation, state, first))
        rows = self._columns(out.dist, out.value.numpy(), rng, greedy=greedy)
        if self.model.core is not None:
            rows["core_state"] = state.core
        return rows, ActingState(state.frames, out.core_state.numpy())

    def _by_numpy(self, handful: Handful, observation: Mapping[str, np.ndarray]) -> tuple[Distribution, np.ndarray]:
        """Distribution and values (n, 1)."""
        output, value = handful(observation)
        masks = [torch.from_numpy(observation[name]).unsqueeze(1) for name in self.model.masks]
        return self.model.policy.distribution(torch.from_numpy(output), *masks), value

    def _columns(
        self, dist: Distribution, value: np.ndarray, rng: np.random.Generator, *, greedy: bool
    ) -> dict[str, np.ndarray]:
        """The rows' columns, (n, ...)."""
        action = dist.mode() if greedy else dist.sample(rng)
        columns = {"action": action, "log_prob": dist.log_prob(action)}
        if self.model.spec.record_distribution:
            columns |= recorded(dist)
        return {name: column.numpy()[:, 0] for name, column in columns.items()} | {"value": value[:, 0]}

    def _batch(self, observation: Mapping[str, np.ndarray], state: ActingState, first: np.ndarray) -> dict[str, Tensor]:
        """The n streams' rows as a batch (n, 1, ...), frames stacked."""
        stacked = dict(observation)
        for name, frames in state.frames.items():
            stacked[name] = frames.push(observation[name], first)
        batch = {name: torch.from_numpy(value).unsqueeze(1) for name, value in stacked.items()}
        if self.model.core is not None:
            batch["core_state"] = torch.from_numpy(state.core).unsqueeze(1)
            batch["step"] = torch.from_numpy(1 - first.astype(np.int32)).unsqueeze(1)
        return batch

    def load(self, version: int, weights: Mapping[str, np.ndarray]) -> None:
        """Act with these weights from now on."""
        self.model.load_acting_weights(weights)
        self._handful = Handful.of(self.model)
        self.version = version


def _keep_in_bf16(model: Model) -> None:
    """Round the encoders' weights once per version instead of in every call, to the same bits.

    Autocast rounds the weights of convolutions and linear layers each time, unless gradients are wanted; for a handful
    of observations that takes longer than the arithmetic.
    """
    for encoder in (model.encoder, model.value_encoder):
        for module in encoder.modules() if encoder is not None else ():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
