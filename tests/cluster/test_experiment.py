from dataclasses import replace

import pytest

from cluster.experiment import ExperimentError, Topology, divisor
from recipes.ppo import ppo
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
        ({"tables": {}}, r"no table of \[\] is read once"),
        (
            {"tables": {"other": Table(batch=8, window=33, stride=32)}},
            r'reads table "fresh", the experiment has \[.other',
        ),
        ({"tables": {"fresh": Table(batch=8, select="uniform")}}, "nothing would count the steps"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict, sentence: str) -> None:
    with pytest.raises(ExperimentError, match=sentence):
        replace(ppo(), **changes).checked()
