"""From what a learner step brought to tagged values: the way of the weights, shares, and the verdict of late."""

import pytest

from actors.actor import STAGES as ACTOR
from actors.actor import Report
from cluster.experiment import Topology
from cluster.statistics import RECENT, Statistics, _means
from cluster.world import Advance
from learners.learner import STAGES as LEARNER
from recipes.ppo import ppo

TWO = ppo(topology=Topology(actors=2, learners=1))


def report(version: int, *, loaded: tuple[float, float] | None = None, actor: int = 0, **seconds: float) -> Report:
    return Report(f"actor-{actor}", version, version, 8, [], dict.fromkeys(ACTOR, 0.0) | seconds, loaded=loaded)


def advance(version: int, published: float, *reports: Report, **seconds: float) -> Advance:
    spent = dict.fromkeys(LEARNER, 0.0) | seconds
    metrics = {f"time/learner_{stage}": value for stage, value in spent.items()}
    return Advance(metrics | {"facts/published": published}, list(reports), 8 * version, version)


def test_the_way_of_weights_is_from_publishing_to_having_loaded() -> None:
    statistics = Statistics(TWO)
    values = statistics.add(advance(1, 100.0, report(0, loaded=(80.0, 81.0), wait=1.0), update=1.0))
    assert "time/weight_sync_p50" not in values, "nobody knows when version 0 was published"
    first = report(1, loaded=(99.0, 100.5), environment=3.0, wait=1.0)
    second = report(1, loaded=(102.0, 102.3), environment=3.9, wait=0.1, actor=1)
    values = statistics.add(advance(2, 200.0, first, second, update=1.0))
    assert values["time/weight_sync_p50"] == pytest.approx(0.5)
    assert values["time/weight_sync_p99"] == pytest.approx(2.3)
    # The first asked before the version was out, the second came for it later.
    assert values["bottleneck/weights_wait"] == pytest.approx((0.5 + 0.3) / 8)


def test_a_block_without_new_weights_has_none_and_an_older_clock_loads_nothing_before_it_is_out() -> None:
    statistics = Statistics(TWO)
    statistics.add(advance(1, 100.0, update=1.0))
    values = statistics.add(advance(2, 200.0, report(1, environment=1.0), update=1.0))
    assert "time/weight_sync_p50" not in values and values["bottleneck/weights_wait"] == 0.0
    values = statistics.add(advance(3, 300.0, report(2, loaded=(199.0, 199.9), environment=1.0), update=1.0))
    assert values["time/weight_sync_p50"] == 0.0 and values["bottleneck/weights_wait"] == 0.0


def test_stages_are_those_of_the_mean_actor_and_shares_of_their_sum() -> None:
    slow, fast = report(0, environment=3.0, wait=1.0), report(0, environment=1.0, wait=3.0, actor=1)
    values = Statistics(TWO).add(advance(1, 1.0, slow, fast, update=1.0, wait=3.0))
    assert (values["time/actor_environment"], values["time/actor_wait"]) == (2.0, 2.0)
    assert (values["bottleneck/actors_busy"], values["bottleneck/learners_busy"]) == (0.5, 0.25)
    assert values["bottleneck/slowest_actor_busy"] == 0.75


def test_the_verdict_is_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.statistics.SECOND", -1.0)
    statistics = Statistics(TWO)
    assert statistics.verdict() is None
    for version in range(1, 30):
        early = version < 30 - RECENT
        waits = report(version - 1, environment=9.0 if early else 1.0, wait=1.0 if early else 9.0)
        statistics.add(advance(version, 0.0, waits, update=1.0 if early else 9.0, wait=9.0 if early else 1.0))
        found = statistics.verdict()
        assert found is not None
        if early:
            assert (found.limit, found.share) == ("environment", 0.9)
    assert (found.limit, found.share) == ("learner", 0.9)


def test_without_reports_nothing_is_said_of_actors() -> None:
    statistics = Statistics(TWO)
    values = statistics.add(advance(1, 0.0, update=1.0))
    assert not any("actor" in tag for tag in values) and statistics.verdict() is None


def test_shares_of_long_steps_count_for_longer() -> None:
    steps = [
        {"time/learner_wait": 3.0, "bottleneck/shards_busy": 1.0},
        {"time/learner_wait": 1.0, "bottleneck/shards_busy": 0.0, "time/actor_wait": 2.0},
    ]
    wanted = {"time/learner_wait": 2.0, "bottleneck/shards_busy": 0.75, "time/actor_wait": 2.0}
    assert _means(steps) == pytest.approx(wanted)
