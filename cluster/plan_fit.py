"""What the model makes of what was seen: the time of messages is what is left, and the error says how well all fits."""

from collections.abc import Sequence
from dataclasses import replace

from cluster.plan_costs import Costs, Seen
from cluster.plan_design import Design
from cluster.plan_model import Simulation

PROBE = 1e-3


def settled(costs: Costs, seen: Sequence[Seen], design: Design) -> Costs:
    """Costs with the time that a message takes, and the largest error on what they were made from, if it is known.

    Nobody measures messages: they are what a learner step of one actor takes beyond its parts.

    Args:
        costs: of the parts.
        seen: what they were made from.
        design: of the machine and the run, but for what was varied.
    """
    alone = [each for each in seen if each.actors == 1 and each.learners == 1] or seen
    bare, probed = replace(costs, hop=0.0), replace(costs, hop=PROBE)
    left = []  # of seconds; a step has at least one message, even where most are beside what it waits for
    for each in alone:
        without, with_them = (_step(some, each, design) for some in (bare, probed))
        left.append((each.step - without) / max(PROBE, with_them - without) * PROBE)
    found = replace(costs, hop=max(0.0, sum(left) / len(left)))
    if len(seen) == 1 and found.hop > 0:  # what is left of it is the time of messages, whatever it is
        return replace(found, error=None)
    return replace(found, error=max(abs(_step(found, each, design) / each.step - 1) for each in seen))


def design_of(seen: Seen, design: Design) -> Design:
    """The design of a run that was watched."""
    return replace(
        design,
        actors=seen.actors,
        envs=seen.envs,
        learners=seen.learners,
        batch=round(seen.rows * seen.learners),
        reductions=seen.reductions,
        shards=1,
        actors_per_node=0,
        learners_per_node=0,
        learner_speed=1.0,
    )


def _step(costs: Costs, seen: Seen, design: Design) -> float:
    return Simulation(costs, design_of(seen, design)).forecast().step
