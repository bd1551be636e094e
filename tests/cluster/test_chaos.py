"""A run to which everything happens that a run survives: the short version of `python -m benchmarks.chaos soak`."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.chaos.checks import Finding, findings
from benchmarks.chaos.evidence import Evidence
from benchmarks.chaos.siege import KINDS, planned
from benchmarks.chaos.soak import soak, summary
from cluster.topology import Topology

TOPOLOGY = Topology(actors=2, learners=2, max_version_lag=1)


def test_the_plan_of_faults_is_the_seed_s_and_has_all_kinds() -> None:
    plan = planned(14, TOPOLOGY, seed=1)
    assert plan == planned(14, TOPOLOGY, seed=1) != planned(14, TOPOLOGY, seed=2)
    assert sorted(fault.kind for fault in plan) == sorted(2 * KINDS)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)


@pytest.mark.ray
@pytest.mark.timeout(600)  # well under a minute on a quiet machine, but it starts many processes again and again
def test_a_run_survives_each_kind_of_fault(tmp_path: Path) -> None:
    soaked = soak(
        tmp_path / "run",
        steps=7_000,
        faults=len(KINDS),
        topology=TOPOLOGY,
        pace=0.004,
        seed=1,
        checkpoint_seconds=1_000.0,
    )
    log = (tmp_path / "run.log").read_text()
    assert not broken(soaked.found), log
    assert {fault.kind for fault in soaked.done} == set(KINDS)
    assert summary(soaked)["goes_on"].keys() >= {"actor", "learner"}
    assert_checks_can_fail(soaked.evidence)


def broken(found: list[Finding]) -> list[str]:
    return [f"{finding.what}: {finding.details}" for finding in found if not finding.holds]


def assert_checks_can_fail(evidence: Evidence) -> None:
    """Each of them finds what it is there for, in the same run with a piece taken out or put in twice."""
    tampered = {
        "learner steps are consecutive": {"steps": evidence.steps[:3] + evidence.steps[4:]},
        "every learner step drew each stream once": {"draws": without(evidence.draws, 5)},
        "every block of a writer was drawn once": {"draws": twice(evidence.draws, 5)},
        "rows committed are rows stored": {"rows": without(evidence.rows, 7)},
        "every stored block was drawn": {"draws": without(evidence.draws, evidence.draws["step"] < 5)},
        "env steps are the decisions": {"rows": evidence.rows | {"mask": np.ones_like(evidence.rows["mask"])}},
    }
    for what, changed in tampered.items():
        other = Evidence(evidence.run, evidence.code)
        other.__dict__.update(changed)
        assert any(text.startswith(what) for text in broken(findings(other))), what
    assert broken(findings(Evidence(evidence.run, 1)))


def without(columns: dict[str, np.ndarray], place: int | np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.delete(values, place) for name, values in columns.items()}


def twice(columns: dict[str, np.ndarray], place: int) -> dict[str, np.ndarray]:
    return {name: np.insert(values, place, values[place]) for name, values in columns.items()}
