"""The verdict on planted times: every limit, and what decides between two."""

from dataclasses import replace

import pytest

from actors.actor import STAGES as ACTOR
from cluster.bottleneck import NotMeasured, busy, verdict
from cluster.experiment import Experiment, Topology
from learners.learner import STAGES as LEARNER
from recipes.ppo import ppo


def experiment(lag: int = 0, **topology) -> Experiment:
    return ppo(topology=Topology(**{"actors": 2, "learners": 1, "max_version_lag": lag, **topology}))


def planted(
    *, actor: dict[str, float] | None = None, learner: dict[str, float] | None = None, **others: float
) -> dict[str, float]:
    """Stages that are not named take as much as is missing to a second, waiting."""
    actor, learner = actor or {}, learner or {}
    values = {f"time/actor_{stage}": actor.get(stage, 0.0) for stage in ACTOR}
    values |= {f"time/learner_{stage}": learner.get(stage, 0.0) for stage in LEARNER}
    values["time/actor_wait"] += 1 - sum(actor.values())
    values["time/learner_wait"] += 1 - sum(learner.values())
    return values | {f"bottleneck/{name}": value for name, value in others.items()}


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(
    ("values", "limit", "share", "knob"),
    [
        (planted(actor={"environment": 0.75, "write": 0.05}, learner={"update": 0.2}), "environment", 0.75, "actors"),
        (planted(actor={"inference": 0.6, "environment": 0.2}, learner={"update": 0.2}), "inference", 0.6, "--envs"),
        (planted(actor={"write": 0.7, "environment": 0.2}, learner={"update": 0.2}), "replay", 0.7, "observations"),
        (planted(actor={"environment": 0.2}, learner={"update": 0.7, "copy": 0.1}), "learner", 0.8, "learners"),
        (planted(actor={"environment": 0.1}, learner={"update": 0.3, "reduce": 0.5}), "all-reduce", 0.5, "fewer"),
        (planted(actor={"environment": 0.1}, learner={"update": 0.3, "gather": 0.5}), "replay", 0.5, "learners"),
        (planted(actor={"environment": 0.1}, learner={"publish": 0.8}), "weights", 0.8, "--rows"),
        (planted(actor={"room": 0.6}, learner={"update": 0.1}, shards_busy=0.8), "replay", 0.8, "--topology.shards"),
        (planted(actor={"environment": 0.1}, learner={"update": 0.1}, weights_wait=0.7), "weights", 0.7, "network"),
        (planted(actor={"environment": 0.1}, learner={"update": 0.1, "between": 0.9}), "driver", 0.9, "--rows"),
    ],
)
def test_each_limit_is_found(lag: int, values: dict[str, float], limit: str, share: float, knob: str) -> None:
    found = verdict(values, experiment(lag))
    assert (found.limit, found.share) == (limit, pytest.approx(share))
    assert knob in found.knob
    assert f"({share:.0%} of the " in str(found) and "\n" not in str(found)


def test_turns_are_the_limit_where_nobody_works_most_of_the_time() -> None:
    values = planted(actor={"environment": 0.3, "inference": 0.15}, learner={"update": 0.4})
    found = verdict(values, experiment(lag=0))
    assert (found.limit, found.share) == ("turns", pytest.approx(0.55))
    assert "--topology.max-version-lag 1" in found.knob
    assert verdict(values, experiment(lag=1)).limit == "environment", "they overlap already"


def test_turns_cost_nothing_where_all_cores_are_busy() -> None:
    values = planted(actor={"environment": 0.45}, learner={"update": 0.5}, cores_busy=0.97)
    found = verdict(values, experiment(lag=0))
    assert found.limit == "learner" and found.knob.startswith("more cores or machines")


def test_one_actor_that_is_slower_than_the_others_is_no_turn() -> None:
    values = planted(actor={"environment": 0.25, "write": 0.05}, learner={"update": 0.1}, slowest_actor_busy=0.88)
    found = verdict(values, experiment())
    assert (found.limit, found.share, found.whose) == ("environment", 0.88, "straggler")
    assert "contrail status" in found.knob
    values["bottleneck/slowest_actor_busy"] = 0.4
    assert verdict(values, experiment()).limit == "turns"
    values = planted(actor={"environment": 0.8}, learner={"update": 0.1}, slowest_actor_busy=0.9)
    assert verdict(values, experiment()).whose == "actors", "all are slow"


def test_what_one_then_waits_for_anyway_is_not_the_drivers() -> None:
    values = planted(actor={"environment": 0.9}, learner={"update": 0.1, "between": 0.3})
    assert verdict(values, experiment()).limit == "environment"


def test_what_the_driver_waits_for_the_shards_is_theirs() -> None:
    values = planted(actor={"environment": 0.1}, learner={"update": 0.1, "between": 0.9}, shards_busy=0.8)
    assert verdict(values, experiment()).limit == "replay"
    values["bottleneck/shards_busy"] = 0.1
    assert verdict(values, experiment()).limit == "driver"


@pytest.mark.parametrize(("queue", "limit"), [(0.0, "environment"), (1.5, "learner")])
def test_the_queue_tells_who_is_ahead_where_both_are_busy(queue: float, limit: str) -> None:
    values = planted(actor={"environment": 0.85}, learner={"update": 0.85}, queue=queue)
    assert verdict(values, experiment(lag=1)).limit == limit
    values = planted(actor={"environment": 0.85}, learner={"update": 0.6}, queue=queue)
    assert verdict(values, experiment(lag=1)).limit == "environment"


def test_in_one_process_all_stages_share_its_time() -> None:
    local = experiment(local=True)
    both = {"wait": 0.0, "environment": 0.2, "inference": 0.05}
    values = planted(actor=both, learner={"update": 0.4, "between": 0.55, "wait": 0.05}) | {"time/actor_wait": 0.0}
    found = verdict(values, local)
    assert (found.limit, found.share) == ("environment", pytest.approx(0.4)), "two actors, one after the other"
    values["time/learner_update"] = 0.6
    assert verdict(values, local).limit == "learner"
    assert "--topology.local" in verdict(values, local).knob
    values["time/learner_between"] = 3.0
    assert verdict(values, local).limit == "driver"


def test_how_busy_the_kinds_are() -> None:
    values = planted(actor={"environment": 0.3, "room": 0.2, "write": 0.1}, learner={"update": 0.5, "between": 0.1})
    assert busy(values, experiment()) == pytest.approx({"bottleneck/actors_busy": 0.4, "bottleneck/learners_busy": 0.5})


def test_who_has_a_store_has_no_actors() -> None:
    offline = replace(experiment(), store="runs/other")
    values = {tag: value for tag, value in planted(learner={"update": 0.3}).items() if "actor" not in tag}
    assert verdict(values, offline).limit == "replay"
    assert verdict(values | {"time/learner_update": 3.0}, offline).limit == "learner"


def test_where_nothing_is_measured_there_is_no_verdict() -> None:
    with pytest.raises(NotMeasured, match="time/learner_gather"):
        verdict({"time/fps": 3.0}, experiment())
    assert busy({"time/fps": 3.0}, experiment()) == {}
