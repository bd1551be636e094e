"""Contrail's side of `benchmarks.results`: a recipe that makes any run of it.

contrail train benchmarks/compared.py:compared --task cartpole --method trpo --seed 1
"""

from actors.environments import Environment
from benchmarks.settings import TASKS, Method, Name, Setting, Task
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp, Nature
from learners.objectives.a2c import A2C
from learners.objectives.ppo import PPO
from learners.objectives.trpo import Critic, Surrogate
from learners.trust_region import TrustRegion
from learners.update import Normalise, Update
from replay.table import Table

STACK = 4
LONGEST = 2_000
"""Agent steps of an evaluated episode."""


def compared(
    *,
    task: Name = "cartpole",
    method: Method = "ppo",
    steps: int = 0,
    seed: int = 1,
    topology: Topology = Topology(actors=1, learners=1, local=True),
) -> Experiment:
    """One run of the tables beside other systems (docs/results/methods.md).

    Args:
        task: the environment, with what every method has on it.
        method: how the policy is moved.
        steps: agent steps to train on; 0: the task's own.
        seed: root of every random number.
        topology: where it runs.
    """
    on = TASKS[task]
    setting = on.settings[method]
    return Experiment(
        environment=Environment(on.id, on.kwargs),
        model=model(on, method),
        tables={"fresh": table(on, setting, topology)},
        updates=updates(on, method),
        envs=setting.envs,
        rows=setting.rows,
        steps=steps or setting.steps,
        seed=seed,
        gamma=setting.gamma,
        topology=topology,
        evaluation_episodes=0,
        evaluation_max_steps=LONGEST,
    )


def model(task: Task, method: Method) -> ActorCritic:
    """The task's network. TRPO's critic shares nothing with the policy."""
    recorded, normalise = method in ("ppo-kl", "trpo"), task.settings[method].normalise
    if task.network == "memory":
        own = Mlp((64,)) if method == "trpo" else None
        return ActorCritic(
            Mlp((64,)), core=Gru(64), value_encoder=own, normalise=normalise, record_distribution=recorded
        )
    if task.network == "nature":
        critic = Nature() if method == "trpo" else None
        return ActorCritic(Nature(), value_encoder=critic, stack=STACK, record_distribution=recorded)
    return ActorCritic(Mlp(), value_encoder=Mlp(), normalise=normalise, record_distribution=recorded)


def table(task: Task, setting: Setting, topology: Topology) -> Table:
    """Windows that are read once."""
    lead = STACK - 1 if task.network == "nature" else 0
    return Table(
        batch=setting.envs, window=setting.rows + 1, stride=setting.rows, lead=lead, max_lag=topology.max_version_lag
    )


def updates(task: Task, method: Method) -> tuple[Update, ...]:
    """One learner step of the method."""
    setting = task.settings[method]
    clip = 1.0 if task.network == "nature" else None
    advantages = Advantages(setting.gamma, setting.lam, reward_clip=clip, scale_reward=setting.normalise)
    passes = {"lr": setting.lr, "anneal": setting.anneal, "epochs": setting.epochs, "minibatches": setting.minibatches}
    after = (Normalise("fresh"),) if setting.normalise else ()
    if method == "trpo":
        step = TrustRegion({"fresh": Surrogate(advantages)}, max_kl=setting.kl)
        return step, Gradient({"fresh": Critic(advantages)}, **passes), *after
    if method == "a2c":
        objective = A2C(advantages, entropy=setting.entropy)
        return Gradient({"fresh": objective}, **passes | {"epochs": 1, "minibatches": 1}), *after
    target = setting.kl if method == "ppo-kl" else None
    ppo = PPO(advantages, clip=setting.clip, value=1.0, entropy=setting.entropy, kl_target=target)
    return Gradient({"fresh": ppo}, **passes), *after
