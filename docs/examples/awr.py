"""Advantage-weighted regression (Peng et al., arXiv:1910.00177): contrail train docs/examples/awr.py:awr."""

from dataclasses import dataclass, replace

from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages, value_error
from learners.gradient import Gradient
from learners.objective import Objective, Term
from recipes.ppo import ppo


@dataclass(frozen=True)
class AWR(Objective):
    """Regression onto the recorded actions, weighted by exp(advantage / temperature), with PPO's critic."""

    temperature: float = 0.5
    most: float = 20.0

    def prepare(self, model, batch, group):
        """New columns, once per batch: advantages, returns and the weights."""
        columns = Advantages(gamma=0.98, lam=0.8).columns(model, batch, group)
        return columns | {"weight": (columns["advantage"] / self.temperature).exp().clamp(max=self.most)}

    def terms(self, model, out, batch):
        """One number per row and term; averaging is not done here."""
        return {
            "regression_loss": Term(-batch["weight"] * out.dist.log_prob(batch["action"]), batch["counted"]),
            "value_loss": Term(value_error(out.value, batch), batch["counted"], weight=0.5),
            "weight": Term(batch["weight"], batch["counted"], weight=0.0),  # a metric: averaged, not minimised
        }


def awr(
    env: str = "CartPole-v1", *, steps: int = 100_000, lr: float = 1e-3, temperature: float = 0.5, seed: int = 1,
    topology: Topology = Topology(actors=1, learners=1),
) -> Experiment:  # fmt: skip
    """Advantage-weighted regression on the rows that PPO would read."""
    gradient = Gradient({"fresh": AWR(temperature)}, lr=lr, epochs=4, minibatches=4)
    return replace(ppo(env, steps=steps, seed=seed, topology=topology), updates=(gradient,))
