"""TorchRL's PPO on a task of `benchmarks.settings`: agent steps a second. Imports none of ours."""

import sys
from collections import deque
from pathlib import Path

import gymnasium
import torch
from tensordict import TensorDict
from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import DoubleToFloat, EnvBase, GymWrapper, RewardSum, TransformedEnv, VecNormV2
from torchrl.modules import MLP, IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the environments of benchmarks/

from benchmarks.peers.clock import EPISODES, asked


def environments(run: dict) -> EnvBase:
    """All of the run in this process, normalised where it wants that."""

    def make() -> gymnasium.Env:
        single = gymnasium.make(run["environment"], **run["kwargs"])
        return gymnasium.wrappers.NormalizeReward(single, gamma=run["gamma"]) if run["normalise"] else single

    disabled = gymnasium.vector.AutoresetMode.DISABLED  # TorchRL resets by itself
    side_by_side = gymnasium.vector.SyncVectorEnv([make] * run["envs"], autoreset_mode=disabled)
    found = TransformedEnv(GymWrapper(side_by_side, categorical_action_encoding=True), RewardSum())
    if run["normalise"]:
        found.append_transform(DoubleToFloat(in_keys=["observation"]))
        found.append_transform(VecNormV2(in_keys=["observation"]))
    found.set_seed(run["seed"])
    return found


def networks(envs: EnvBase) -> tuple[ProbabilisticActor, ValueOperator]:
    """Policy and critic, started as the library's examples of PPO have them."""
    seen, action = envs.observation_spec["observation"].shape[-1], envs.action_spec_unbatched
    discrete = hasattr(action, "n")
    shape = {"in_features": seen, "num_cells": [64, 64], "activation_class": torch.nn.Tanh}
    policy = MLP(out_features=action.n if discrete else action.shape[-1], **shape)
    critic = MLP(out_features=1, **shape)
    for network, last in ((policy, 0.01), (critic, 1.0)):
        layers = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        for layer in layers:
            torch.nn.init.orthogonal_(layer.weight, last if layer is layers[-1] else 2**0.5)
            layer.bias.data.zero_()
    if discrete:
        module, kind = TensorDictModule(policy, ["observation"], ["logits"]), torch.distributions.Categorical
    else:
        scaled = torch.nn.Sequential(policy, AddStateIndependentNormalScale(action.shape[-1]))
        module, kind = TensorDictModule(scaled, ["observation"], ["loc", "scale"]), IndependentNormal
    actor = ProbabilisticActor(
        module, in_keys=module.out_keys, spec=action, distribution_class=kind, return_log_prob=True
    )
    return actor, ValueOperator(critic, in_keys=["observation"])


def main() -> None:
    """Train as the command line says."""
    run, clock = asked(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(run["seed"])
    envs, batch, returns = environments(run), run["envs"] * run["rows"], deque(maxlen=EPISODES)
    actor, critic = networks(envs)
    advantages = GAE(gamma=run["gamma"], lmbda=run["lam"], value_network=critic, average_gae=False)
    loss = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=run["clip"],
        entropy_coeff=run["entropy"],
        critic_coeff=0.5,
        loss_critic_type="l2",
        normalize_advantage=True,
        log_explained_variance=False,
        functional=False,  # which costs less, says its documentation
    )
    optimiser = torch.optim.Adam(loss.parameters(), lr=run["lr"], eps=1e-5)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(batch), sampler=SamplerWithoutReplacement(), batch_size=batch // run["minibatches"]
    )
    collector = Collector(
        envs, actor, frames_per_batch=batch, total_frames=clock.steps, auto_register_policy_transforms=False
    )
    for number, rows in enumerate(collector, 1):
        ended = rows["next", "done"]
        returns.extend(rows["next", "episode_reward"][ended].tolist())
        if run["anneal"]:
            optimiser.param_groups[0]["lr"] = run["lr"] * (1 - (number - 1) * batch / clock.steps)
        learn(run, advantages, loss, buffer, rows, optimiser)
        if clock.iteration(number * batch, returns):
            break
    print(clock.told())


def learn(
    run: dict,
    advantages: GAE,
    loss: ClipPPOLoss,
    buffer: TensorDictReplayBuffer,
    rows: TensorDict,
    optimiser: torch.optim.Optimizer,
) -> None:
    """One learner step on a batch."""
    with torch.no_grad():
        advantages(rows)
    buffer.extend(rows.reshape(-1))
    for _ in range(run["epochs"]):
        for part in buffer:
            terms = loss(part)
            (terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]).backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
            optimiser.step()
            optimiser.zero_grad()


if __name__ == "__main__":
    main()
