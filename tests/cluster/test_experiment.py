from dataclasses import replace

import pytest
import torch

from cluster.experiment import ExperimentError, Spaces, Topology
from cluster.topology import divisor
from learners.gradient import Gradient
from learners.objective import Sum
from learners.objectives.cpc import Cpc
from learners.objectives.ppo import PPO
from learners.objectives.trpo import Critic
from learners.update import UpdateError
from recipes.cpc_ppo import cpc_ppo
from recipes.ppo import ppo
from recipes.recurrent_ppo import recurrent_ppo
from recipes.trpo import trpo
from replay.table import Table


def test_numbers_left_to_the_machine_are_filled_in() -> None:
    topology = ppo(envs=6, topology=Topology()).checked().topology
    assert 6 % topology.actors == 0 and topology.learners >= 1 and topology.gpus_per_learner >= 0


def test_divisor_is_the_largest_that_fits() -> None:
    assert [divisor(12, most) for most in (1, 5, 12, 99)] == [1, 4, 12, 12]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"topology": Topology(actors=3, learners=1)}, "8 environments do not divide over 3 actors"),
        ({"topology": Topology(actors=1, learners=1, shards=2)}, "1 actors do not divide over 2 shards"),
        ({"topology": Topology(actors=1, learners=3)}, "draws 8 items a step, which do not divide over 1 shards x 3"),
        ({"topology": Topology(actors=1, learners=2, local=True)}, "leave out --topology.local"),
        ({"envs": 4}, r"draws 8 windows of 33 rows a step, but blocks of 32 rows of 4 environments hold 4"),
        ({"steps": 0}, "steps is 0, wanted at least 1"),
        ({"tables": {}, "updates": ()}, r"no table of \[\] is read once"),
        (
            {"tables": {"other": Table(batch=8, window=33, stride=32)}},
            r'reads table "fresh", the experiment has \[.other',
        ),
        ({"tables": {"fresh": Table(batch=8, select="uniform")}}, "nothing would count the steps"),
        ({"seed": -1}, "seed is -1, wanted at least 0"),
        ({"gamma": 1.5}, "gamma is 1.5, wanted 0 to 1"),
        ({"topology": Topology(learners=-1)}, "--topology.learners is -1, wanted at least 0"),
        ({"topology": Topology(threads=0)}, "--topology.threads is 0, wanted at least 1"),
        (
            {"tables": {**ppo().tables, "history": Table(batch=8, select="uniform", min_items=10_000)}},
            "waits for 10000 windows, but holds 256 when actors wait",
        ),
        (
            {
                "tables": {"fresh": Table(batch=8, window=33, stride=32, capacity=16)},
                "topology": Topology(actors=2, max_version_lag=2),
            },
            "room for 16 windows, but actors that are ahead fill 24",
        ),
        (
            {"updates": (Gradient({"fresh": PPO()}, minibatches=500),)},
            "500 minibatches of the 256 rows that each of 1 learners draws",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict, sentence: str) -> None:
    with pytest.raises(ExperimentError, match=sentence):
        replace(ppo(), **changes).checked()


def test_a_learner_keeps_eight_windows_however_many_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.topology.os.sched_getaffinity", lambda _: set(range(64)))
    assert Topology().resolved(32).learners == 4
    assert Topology().resolved(8).learners == 1


def test_fewer_windows_than_minibatches_are_refused_where_windows_stay_whole() -> None:
    with pytest.raises(ExperimentError, match="8 minibatches of the 4 windows"):
        cpc_ppo(envs=4, minibatches=8, topology=Topology(actors=1, learners=1)).checked()


def test_nothing_may_move_the_policy_after_its_trust_region() -> None:
    apart = trpo().checked()
    step, critic = apart.updates
    shared = replace(apart, model=replace(apart.model, value_encoder=None))
    contrast = Gradient({"fresh": Sum({"critic": (1.0, Critic()), "cpc": (0.3, Cpc())})})
    for experiment in (shared, replace(apart, updates=(step, critic, contrast))):
        with pytest.raises(UpdateError, match='Gradient on table "fresh" may move encoder, core after TrustRegion has'):
            experiment.checked()
    replace(shared, updates=(critic, contrast, step)).checked()


def test_no_epochs_are_refused_and_a_rate_that_is_no_number() -> None:
    with pytest.raises(UpdateError, match="epochs is 0, wanted at least 1"):
        ppo(epochs=0)
    with pytest.raises(UpdateError, match=r"lr is nan, wanted at least 0\.0"):
        ppo(lr=float("nan"))


@pytest.mark.parametrize("lag", [0, 2])
def test_every_draw_takes_a_block_of_every_actor(lag: int) -> None:
    table = replace(ppo(), topology=Topology(actors=2, learners=1, max_version_lag=lag)).checked().tables["fresh"]
    assert table.per_stream == 1 and table.capacity == (lag + 2) * 8


def test_the_schema_is_what_the_policy_records_and_costs_no_random_number() -> None:
    experiment = recurrent_ppo(topology=Topology(actors=1, learners=1))
    experiment = replace(experiment, model=replace(experiment.model, record_distribution=True))
    spaces, before = Spaces.of(experiment.environment), torch.get_rng_state()
    columns, extras = spaces.schema(experiment).columns, spaces.policy(experiment).extras
    assert torch.equal(torch.get_rng_state(), before)
    assert {"value", "core_state", "policy_logits"} == set(extras)
    assert extras.items() <= columns.items()
