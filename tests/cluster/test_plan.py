from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from cluster.plan import Plan, Planner
from cluster.plan_advice import impossible, limits, memory, verdict
from cluster.plan_costs import Line, fitted
from cluster.plan_model import Simulation
from cluster.plan_runs import seen_in
from cluster.plan_table import assumed, rows, show, told
from tests.cluster.commands import Contrail
from tests.cluster.plans import COSTS, DESIGN, act, forecast, learn, run_folder


def test_one_actor_that_waits_for_nobody_else_takes_the_sum_of_its_parts() -> None:
    c = COSTS
    parts = c.read + act(c) + c.commit(8) + c.draw + learn(c) + c.publish + 4 * c.hop
    found = forecast()
    assert found.step == pytest.approx(parts, rel=1e-9)
    assert found.speed == pytest.approx(8 * c.decisions / parts, rel=1e-9)


@pytest.mark.parametrize("actors", [1, 4, 12])
@pytest.mark.parametrize("lag", [0, 1])
def test_utilisation_is_throughput_times_service_time(actors: int, lag: int) -> None:
    found, c = forecast(actors=actors, batch=256 * actors, lag=lag, cores=64), COSTS
    demands = {
        "shards": actors * c.commit(8) + c.draw,
        "channel": actors * c.read + c.publish,
        "driver": actors * (c.report + c.look * (actors + 1)) + c.advance,
        "actors": act(c),
        "learners": learn(c, 256 * actors),
    }
    for part, demand in demands.items():
        assert found.busy[part] == pytest.approx(demand / found.step, rel=0.02), part


def test_twice_the_cores_are_twice_the_speed_where_cores_are_too_few() -> None:
    busy = replace(COSTS, act_work=Line(0.1), act_rest=Line(), learn_work=Line(0.001), learn_rest=Line())
    two, four = (forecast(busy, actors=8, cores=cores) for cores in (2, 4))
    assert four.speed / two.speed == pytest.approx(2, rel=0.05)
    assert two.busy["cores"] > 0.95


def test_environments_that_only_wait_need_no_cores() -> None:
    asleep = replace(COSTS, act_work=Line(0.001), act_rest=Line(0.5))
    one, eight = (forecast(asleep, actors=actors, cores=2) for actors in (1, 8))
    assert eight.speed / one.speed > 7


def test_without_lag_they_take_turns_and_with_lag_they_overlap() -> None:
    turns, overlapped = forecast(), forecast(lag=1)
    assert turns.lag == turns.lag_p99 == 0
    assert turns.step >= act(COSTS) + learn(COSTS)
    assert turns.busy["actors"] + turns.busy["learners"] < 1
    assert max(act(COSTS), learn(COSTS)) <= overlapped.step < 0.8 * turns.step
    assert 0 < overlapped.lag <= 1 and overlapped.lag_p99 == 1


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_more_actors_never_outrun_the_learner(lag: int) -> None:
    for actors in (1, 4, 16, 64):
        batch = 256 * actors
        found = forecast(actors=actors, batch=batch, lag=lag, cores=128)
        assert found.step >= learn(COSTS, batch) * (1 - 1e-9)
        assert found.lag_p99 <= lag


def test_uneven_blocks_make_all_wait_for_the_slowest() -> None:
    quick = replace(COSTS, commit=Line(1e-5), read=1e-5, report=1e-5)
    even, uneven = (forecast(replace(quick, spread=spread), actors=50, cores=99).step for spread in (0.0, 0.3))
    assert uneven > even + 0.3 * act(COSTS)


def test_rows_of_other_nodes_go_through_the_drivers_network() -> None:
    narrow = {"actors": 8, "actors_per_node": 4, "block_bytes": 1_000_192, "row_bytes": 3907, "bandwidth": 1e7}
    found = forecast(**narrow)
    assert found.step > 8 * 1e6 / 1e7
    assert found.traffic["driver in"] == pytest.approx(8e6 / found.step, rel=0.01)
    assert found.traffic["actors out"] == pytest.approx(4e6 / found.step, rel=0.01)
    assert 0.5 < found.busy["network"] <= 1


def test_large_weights_go_once_to_each_node_and_small_ones_to_each_actor() -> None:
    many = {"actors": 8, "actors_per_node": 4, "row_bytes": 0, "block_bytes": 0}
    large, small = forecast(weight_bytes=1_000_000, **many), forecast(weight_bytes=10_000, **many)
    assert large.traffic["driver out"] * large.step == pytest.approx(2 * 1e6)
    assert small.traffic["driver out"] * small.step == pytest.approx(8 * 1e4)


def test_learners_on_several_nodes_pay_for_a_ring() -> None:
    same = {"learners": 4, "learners_per_node": 2, "reductions": 10, "latency": 0.0}
    one, ring = forecast(**same, gradient_bytes=0), forecast(**same, gradient_bytes=10_000_000)
    assert ring.step - one.step == pytest.approx(10 * 2 * 3 / 4 * 1e7 / 1.25e9, rel=1e-6)


def test_other_threads_of_actors_and_learners_take_cores_but_nobody_waits_for_them() -> None:
    busy = replace(COSTS, act_aside=Line(0.01), learn_aside=Line(0.005))
    bare, found = forecast(), forecast(busy)
    assert found.step == pytest.approx(bare.step, rel=1e-9)
    assert 16 * (found.busy["cores"] * found.step - bare.busy["cores"] * bare.step) == pytest.approx(0.015, rel=0.05)
    few = {"actors": 4, "cores": 2, "batch": 1024}
    assert forecast(replace(busy, act_aside=Line(0.05)), **few).step > 1.5 * forecast(**few).step


def test_actors_on_other_nodes_wait_until_their_shard_has_a_block() -> None:
    slow = replace(COSTS, commit=Line(0.1), learn_work=Line(0.001))
    here, far = (forecast(slow, lag=2, actors_per_node=apart) for apart in (0, 1))
    assert far.step == pytest.approx(here.step + act(COSTS), rel=0.2)
    assert far.step > 0.1 + act(COSTS) > here.step


def test_a_finished_run_tells_what_it_knows(tmp_path: Path) -> None:
    seen = seen_in(run_folder(tmp_path))
    assert (seen.actors, seen.envs, seen.learners, seen.reductions) == (1, 8, 1, 20)
    assert (seen.block, seen.update, seen.step) == pytest.approx((0.04, 0.03, 0.1))
    assert seen.rows == 8 * 33 and seen.decisions == pytest.approx(254)
    costs = fitted([seen])
    assert costs.act_work == Line(0.0, 0.04 / 8) and costs.learn_work(8 * 33) == pytest.approx(0.03)
    assert {"commit", "report", "read", "act_rest", "learn_aside"} <= set(costs.assumed)


def test_a_plan_from_a_run_says_what_breaks_first(tmp_path: Path, contrail: Contrail) -> None:
    flags = ["--from", run_folder(tmp_path), "--actors", "1000", "--actors-per-node", "16", "--cores", "16"]
    told = contrail("plan", "ppo", *flags, "--price", "2", "--memory-gb", "64")
    assert told.code == 0, told.error
    assert "env steps/s trained" in told.out and "price of 1e9 env steps" in told.out
    assert "1,000 actors: " in told.out
    assert "Not measured, but typical values: commit" in told.out
    assert "taken to be computing" in told.out and "not known, since one run always fits" in told.out
    assert "Actors of 8 to 8 environments were measured" not in told.out


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--actors", "0"], "--actors is 0, wanted numbers of at least 1"),
        (["--learners", "0"], "--learners is 0, wanted at least 1"),
        (["--gbps", "0"], "--gbps is 0.0, wanted more than 0"),
        (["--price", "-1"], "--price is -1.0, wanted at least 0"),
        (["--actors-per-node", "4", "--cores", "2"], "--actors-per-node is 4, but in a cluster each takes a core"),
        (["--envs", "16"], "--envs is not for a plan: give --envs-per-actor"),
        (["--topology.local"], "--topology.local is not for a plan: it is planned for processes"),
        (["--from", "nowhere"], "there is no run nowhere"),
    ],
)
def test_mistakes_are_put_in_a_sentence(contrail: Contrail, flags: list[str], wanted: str) -> None:
    told = contrail("plan", "ppo", *flags)
    assert told.code == 2 and told.sentence.startswith(f"contrail: {wanted}")


def test_a_file_that_is_no_calibration_is_refused(contrail: Contrail, tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text('{"act_work": 1}')
    told = contrail("plan", "ppo", "--from", tmp_path / "costs.json")
    assert told.code == 2 and "is no calibration" in told.sentence and "make one with --save" in told.sentence


def test_runs_that_cannot_be_planned_are_refused(contrail: Contrail, tmp_path: Path) -> None:
    assert "no recipe 'pop'" in contrail("plan", "pop").sentence
    assert "takes no `envs`" in contrail("plan", "clone", "--store", "x").sentence
    short = contrail("plan", "ppo", "--from", run_folder(tmp_path, steps=3))
    assert short.code == 2 and "learner steps to learn from, wanted at least" in short.sentence


def test_help_tells_of_flags(contrail: Contrail) -> None:
    assert contrail("plan").code == 2
    told = contrail("plan", "ppo", "--help")
    assert told.code == 0 and "--actors-per-node" in told.out


def test_memory_is_counted_where_processes_are() -> None:
    costs = replace(COSTS, memory={"actor": 4.0, "learner": 5.0, "shard": 2.0, "channel": 1.0, "driver": 3.0})
    costs = replace(costs, rows=(1.0, 256.0), snapshot=0.0)
    here = replace(DESIGN, actors=3, shards=2)
    taken = memory(costs, here, 100)
    assert (taken.driver, taken.actors, taken.learners) == (100 + 3 + 1 + 4 + 12 + 5, None, None)
    apart = replace(here, actors_per_node=2, learners_per_node=1)
    taken = memory(costs, apart, 100)
    assert (taken.driver, taken.actors, taken.learners) == (108, 8, 5)
    assert [text.split(" wants")[0] for text in impossible(apart, taken, 50.0)] == ["the driver's node"]


def test_what_is_slow_is_what_would_help_most() -> None:
    slow = {
        "actors": replace(COSTS, act_work=Line(0.5)),
        "learners": replace(COSTS, learn_work=Line(0.5)),
        "driver": replace(COSTS, report=0.2),
        "channel": replace(COSTS, read=0.2),
        "shards": replace(COSTS, commit=Line(0.2)),
    }
    for part, costs in slow.items():
        design = replace(DESIGN, actors=4, cores=32)
        found = Simulation(costs, design).forecast()
        changes = limits(costs, design, found)
        assert changes[0].part == part
        assert all(one.gain >= other.gain for one, other in pairwise(changes))
        assert part in verdict(found, changes)


def test_equal_turns_are_told_as_turns() -> None:
    even = replace(COSTS, act_work=Line(0.1), act_rest=Line(), learn_work=Line(0.1), learn_rest=Line())
    changes = limits(even, DESIGN, forecast(even))
    assert changes[0].part == "turns" and "max-version-lag 1" in changes[0].knob
    assert "take turns" in verdict(forecast(even), changes)


def test_the_table_has_a_column_for_each_plan_and_warns_of_what_lies_far_beyond(tmp_path: Path) -> None:
    costs = replace(COSTS, rows=(264.0, 1056.0), envs=(8, 32), error=0.03)
    costs.save(tmp_path / "costs.json")
    planner = Planner.of("ppo", ["--from", str(tmp_path / "costs.json"), "--envs-per-actor", "64", "--rows", "16"])
    plans = [planner.plan(costs, actors) for actors in (4, 1)]
    assert all(isinstance(plan, Plan) and len(row) == 3 for plan in plans for row in rows(plans))
    texts = "\n".join(assumed(costs, plans))
    assert "4,352 rows a step there, 4 times the most" in texts
    assert "8 to 32 environments were measured, not of 64" in texts
    assert "come from: up to 3%." in texts
    assert "\n".join(told(plans[0])).startswith("\n4 actors: ")
    console = Console(record=True, width=100)
    show(console, planner, costs, plans)
    assert "env steps/s trained" in console.export_text()


def test_a_design_counts_what_the_recipe_does(tmp_path: Path) -> None:
    COSTS.save(tmp_path / "costs.json")
    flags = ["--learners", "2", "--actors-per-node", "1", "--learners-per-node", "2", "--cores", "4", "--epochs", "3"]
    planner = Planner.of("ppo", [*flags, "--minibatches", "2", "--topology.max-version-lag", "1"])
    design = planner.design(4)
    assert (design.actors, design.envs, design.learners, design.lag) == (4, 8, 2, 1)
    assert (design.reductions, design.batch, design.nodes) == (6, 33 * 32, 1 + 4 + 1)
    assert design.block_bytes == design.row_bytes * 32 * 8
    assert 0 < design.weight_bytes <= design.gradient_bytes * 1.01
