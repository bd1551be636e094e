import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.experiment import ExperimentError
from cluster.plan import Planner
from cluster.plan_costs import Costs, Line, Seen, fitted, least
from cluster.plan_fit import design_of, settled
from cluster.plan_model import Simulation
from tests.cluster.plans import COSTS, DESIGN, act, learn, run_folder


def seen_of(actors: int, envs: int, costs: Costs = COSTS) -> Seen:
    """What one would see of a run with these costs."""
    rows, both = 33.0 * actors * envs, actors * envs
    cpu = {
        "actor": costs.act_work(envs),
        "learner": costs.learn_work(rows),
        "shard": actors * costs.commit.fixed + both * costs.commit.each + costs.draw,
        "channel": actors * costs.read + costs.publish,
        "driver": actors * costs.report + costs.advance,
        "ray": 0.0,
    }
    blank = Seen(actors, envs, 1, rows, 20, 1.0, act(costs, envs), learn(costs, rows), costs.decisions * both, cpu=cpu)
    step = Simulation(costs, design_of(blank, DESIGN)).forecast().step
    return replace(blank, step=step, memory={kind: 1e8 for kind in (*cpu, "driver") if kind != "ray"})


def test_costs_are_found_again_from_what_is_seen_of_them() -> None:
    seen = [seen_of(1, 8), seen_of(1, 32), seen_of(2, 8)]
    found = settled(fitted(seen), seen, DESIGN)
    for name in ("act_work", "act_rest", "learn_work", "learn_rest", "commit"):
        line, wanted = getattr(found, name), getattr(COSTS, name)
        assert (line.fixed, line.each) == pytest.approx((wanted.fixed, wanted.each), rel=1e-3, abs=1e-9), name
    for name in ("draw", "read", "publish", "advance", "report", "hop", "decisions"):
        assert getattr(found, name) == pytest.approx(getattr(COSTS, name), rel=2e-3), name
    assert found.error < 0.01 and found.assumed == ("reduce",)
    assert found.envs == (8, 32) and found.rows == (33 * 8, 33 * 32)


def test_sums_over_learners_are_what_a_step_of_two_takes_beyond_their_rows() -> None:
    pair = replace(seen_of(1, 16), learners=2, rows=33.0 * 8, update=learn(COSTS, 33 * 8) + 20 * 0.003)
    costs = fitted([seen_of(1, 8), seen_of(1, 32), pair])
    assert costs.reduce == pytest.approx(0.003, rel=0.05) and costs.assumed == ()


def test_threads_beside_a_block_are_no_part_of_it() -> None:
    busy = [replace(each, cpu=each.cpu | {"actor": 0.5, "learner": 0.4}) for each in (seen_of(1, 8), seen_of(1, 8))]
    costs = fitted(busy)
    for part, wall, cpu in (("act", act(COSTS), 0.5), ("learn", learn(COSTS, 33 * 8), 0.4)):
        work, rest, aside = (getattr(costs, f"{part}_{which}") for which in ("work", "rest", "aside"))
        count = 8 if part == "act" else 33 * 8
        assert (work(count), rest(count)) == (pytest.approx(wall, rel=1e-2), 0.0), part
        assert aside(count) == pytest.approx(cpu - wall, rel=1e-2), part


def test_a_time_of_messages_that_a_step_hardly_shows_does_not_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.plan_fit._step", lambda costs, seen, design: 0.05)
    seen = replace(seen_of(1, 8), step=0.06)
    assert settled(COSTS, [seen], DESIGN).hop == pytest.approx(0.01)


def test_nothing_weighs_no_more_than_a_little() -> None:
    assert 32 * least([[8.0, 32.0]], [0.0, 0.002])[0] > 2e-4
    assert least([[1.0, 1.0, 1.0]], [0.0, 0.0, 0.0]) == [0.0]


def test_costs_are_never_negative() -> None:
    assert least([[1.0, 1.0], [1.0, 2.0]], [2.0, 1.0])[1] == 0
    assert least([[1.0, 1.0, 2.0], [8.0, 32.0, 16.0]], [3.0, 3.0, 6.0]) == pytest.approx([3.0, 0.0])


def test_costs_are_kept_and_read_again(tmp_path: Path) -> None:
    COSTS.save(tmp_path / "costs.json")
    assert Costs.load(tmp_path / "costs.json") == COSTS
    least_of_all = {"act_work": {"fixed": 1.0, "each": 0.0}, "learn_work": {"fixed": 2.0, "each": 0.0}}
    (tmp_path / "costs.json").write_text(json.dumps(least_of_all))
    assert Costs.load(tmp_path / "costs.json") == Costs(act_work=Line(1.0), learn_work=Line(2.0))


def planner_of(source: Path, *flags: str, recipe: str = "ppo") -> Planner:
    return Planner.of(recipe, ["--from", str(source), *flags])


def test_costs_are_of_one_recipe_and_its_flags(tmp_path: Path) -> None:
    file, run = tmp_path / "costs.json", run_folder(tmp_path, "--rows", "16", "--run.name", "x", "--seed", "7")
    costs = planner_of(run, "--rows", "16", "--topology.max-version-lag", "1", "--steps", "77").costs()
    costs.save(file)
    for source in (file, run):
        planner_of(source, "--rows", "16", "--envs-per-actor", "4").costs()
        with pytest.raises(
            ExperimentError, match=r"with --rows 16, but the plan has --rows 32: plan what was measured"
        ):
            planner_of(source).costs()
        with pytest.raises(ExperimentError, match="with recipe ppo, but the plan has recipe a2c"):
            planner_of(source, recipe="a2c").costs()


def test_all_designs_are_looked_at_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def calibrated(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("cluster.calibration.calibrated", calibrated)
    with pytest.raises(ExperimentError, match="learners"):
        Planner.of("ppo", ["--actors", "3", "1", "--learners", "3", "--envs-per-actor", "8"]).costs()
