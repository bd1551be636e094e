"""The benchmark of whole systems beside peers: what is run, what a peer's clock tells, and the tables."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import cartpole
from benchmarks.peer import INSTALLED
from benchmarks.peers.clock import EPISODES, Clock, asked
from benchmarks.settings import told
from benchmarks.throughput.__main__ import asked_for, best_peer, markdown, summary
from benchmarks.throughput.tasks import SCRIPTS, SUIT, commands

NAMES = ("cartpole", "cheetah", "empty")


@pytest.mark.parametrize("task", SUIT)
def test_peers_come_first_with_a_script_of_their_own_and_the_settings_that_ours_has(task: str) -> None:
    pythons = {peer: Path(peer) / "python" for peer in SUIT[task]}
    found = commands(task, pythons, iterations=3)
    assert list(found)[: len(pythons)] == list(pythons)
    for peer, python in pythons.items():
        script = found[peer][1]
        assert found[peer][0] == python and isinstance(script, Path) and script.is_file()
        assert "--iterations" in found[peer]
        if script.name.endswith("_speed.py"):
            assert json.loads(str(found[peer][2]))["environment"] in {
                told(name, "ppo")["environment"] for name in NAMES
            }
    ours = commands(task, {}, iterations=3)
    assert ours.items() <= found.items() and all(name.startswith("ours") for name in ours)


def test_a_script_is_there_for_every_peer_and_no_other() -> None:
    assert {path.name.removesuffix("_speed.py") for path in SCRIPTS.glob("*_speed.py")} == set(INSTALLED)
    assert set(INSTALLED) == {peer for suited in SUIT.values() for peer in suited}
    assert asked_for("sb3", ()) and asked_for("ours, Ray, 1 actor", ("Ray",)) and not asked_for("sb3", ("ours",))


def test_a_clock_counts_after_the_warm_up_and_ends_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 11.0, 15.0])
    monkeypatch.setattr("benchmarks.peers.clock.time.time", lambda: next(now))
    used = iter([1.0, 4.0])
    monkeypatch.setattr("benchmarks.peers.clock.cpu_seconds", lambda pid: next(used))
    clock = Clock(400, warm_up=200)
    assert [clock.iteration(steps) for steps in (100, 200, 300, 400)] == [False, False, False, True]
    line = json.loads(clock.told())
    assert (line["steps_per_second"], line["cpu_microseconds"]) == (200 / 5, 3e6 / 200)
    assert (line["solved"], line["steps"], line["mean_return"]) == (None, 400, None)


def test_a_clock_ends_with_the_mean_of_a_hundred_returns() -> None:
    clock = Clock(10_000, until=475.0)
    returns = [500.0] * (EPISODES - 1)
    assert not clock.iteration(100, returns)
    assert not clock.iteration(200, [0.0] * 10 + [500.0] * 90)
    assert clock.iteration(300, [475.0] * EPISODES) and clock.done
    line = json.loads(clock.told())
    assert line["first_step"] <= line["solved"] and line["steps"] == 300


def test_a_script_is_asked_for_iterations_or_for_a_return(monkeypatch: pytest.MonkeyPatch) -> None:
    run = told("cartpole", "ppo")
    monkeypatch.setattr(sys, "argv", ["script", json.dumps(run), "--iterations", "5", "--warm-up", "2"])
    assert asked("a peer")[1].steps == 7 * 8 * 32
    monkeypatch.setattr(sys, "argv", ["script", json.dumps(run), "--until", "475"])
    assert asked("a peer")[0] == run and asked("a peer")[1].steps == 391 * 8 * 32 >= run["steps"]


def test_the_table_names_the_best_peer_and_our_ratio_to_it() -> None:
    speeds = {
        "sb3": [200.0, 100.0, 300.0],
        "tianshou": [400.0, 400.0, 50.0],
        "ours, one process": [600.0, 600.0, 700.0],
    }
    found = summary(
        {name: [{"steps_per_second": one, "cpu_microseconds": 2.0} for one in speeds[name]] for name in speeds}
    )
    assert best_peer(found) == "tianshou"
    table = markdown(found, 3)
    assert "| x the best peer, tianshou |" in table
    assert "| ours, one process | 600 | 600-700 | 3.00 | 2 | 1.50 |" in table
    assert {line.count("|") for line in table.splitlines()} == {7}
    alone = markdown({"ours, one process": found["ours, one process"]}, 3)
    assert "best peer" not in alone and {line.count("|") for line in alone.splitlines()} == {6}


def test_a_peers_seconds_are_from_the_start_of_its_process(tmp_path: Path) -> None:
    script = tmp_path / "peer.py"
    script.write_text(
        "import json, sys, time\n"
        "assert json.loads(sys.argv[1])['seed'] == 7 and sys.argv[2:] == ['--until', '475.0']\n"
        "told = {'first_step': time.time() + 10, 'solved': time.time() + 20, 'steps': 300, 'mean_return': 480.04}\n"
        "print('a library greets')\n"
        "print(json.dumps(told | {'steps_per_second': 99.6, 'cpu_microseconds': 1.0}))\n"
    )
    found = cartpole.measure_peer(Path(sys.executable), script, seed=7)
    assert 10 <= found["seconds_to_first_step"] < 20 <= found["seconds_to_475"] < 30
    assert (found["steps_to_475"], found["last_mean_return"], found["steps_per_second"]) == (300, 480.0, 100)


def test_ratios_are_of_medians_and_not_there_without_475() -> None:
    found = {"ours": [10.0, 12.0, None], "sb3": [30.0, 24.0, 18.0], "rllib": [20.0, None, None]}
    runs = {name: [{"seconds_to_475": seconds} for seconds in times] for name, times in found.items()}
    assert cartpole.ratios(runs) == {"sb3": 2.0, "rllib": None}
