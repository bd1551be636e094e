"""A recipe of one's own: an objective, and the function that trains it.

contrail train docs/examples/my_recipe.py:my_recipe --temperature 0.5
"""

from dataclasses import dataclass, replace

from cluster.experiment import Experiment, Topology
from learners.gradient import Gradient
from learners.group import Group
from learners.model import Model, Output
from learners.objective import Batch, Objective, Term
from learners.objectives.ppo import PPO
from recipes.ppo import ppo


@dataclass(frozen=True)
class AWR(Objective):
    """Regression onto the recorded actions, weighted by exp(advantage / temperature) (arXiv:1910.00177)."""

    temperature: float = 1.0
    max_weight: float = 20.0

    def prepare(self, model: Model, batch: Batch, group: Group) -> Batch:
        """New columns, once per batch: PPO's advantages and returns, and the weights."""
        columns = PPO(gamma=0.98, lam=0.8).prepare(model, batch, group)
        return columns | {"weight": (columns["advantage"] / self.temperature).exp().clamp(max=self.max_weight)}

    def terms(self, model: Model, out: Output, batch: Batch) -> dict[str, Term]:
        """One number per row and term; averaging is not done here."""
        regression = -batch["weight"] * out.dist.log_prob(batch["action"])
        error = (out.value - batch["return"]).square()
        return {
            "policy_gradient_loss": Term(regression, batch["counted"]),
            "value_loss": Term(error, batch["counted"], weight=0.5),
            "weight": Term(batch["weight"], batch["counted"], weight=0.0),  # a metric: averaged, not minimised
        }


def my_recipe(
    env: str = "CartPole-v1",
    *,
    steps: int = 100_000,
    lr: float = 1e-3,
    temperature: float = 1.0,
    seed: int = 1,
    topology: Topology = Topology(actors=1, learners=1),
) -> Experiment:
    """Advantage-weighted regression on the rows that PPO would read.

    Args:
        env: a Gymnasium id, or "module:Name-v0".
        steps: agent steps to train on.
        lr: Adam's learning rate.
        temperature: the lower, the more only the best actions count.
        seed: root of every random number.
        topology: where it runs.
    """
    gradient = Gradient({"fresh": AWR(temperature)}, lr=lr, epochs=4, minibatches=4)
    return replace(ppo(env, steps=steps, seed=seed, topology=topology), updates=(gradient,))
