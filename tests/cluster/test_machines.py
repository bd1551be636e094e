"""The pretend machines themselves, without Ray: what is each one's own, their faults, and that nothing is left."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.condition import Condition
from cluster.vitals import Vitals
from tests.cluster.commands import HOUSE, wait_until
from tests.cluster.faults import kill, kill_process, kill_ray, left, matching, unplugged
from tests.cluster.machines import Machines

pytestmark = pytest.mark.cluster
SSH = "ssh -o StrictHostKeyChecking=no -o ConnectTimeout=2 -o LogLevel=ERROR"


def test_each_has_its_own_name_processes_home_and_memory(machines: Machines) -> None:
    first, second, _ = machines
    first.run("touch ~/mine /tmp/mine /dev/shm/mine")
    assert first.path("mine").exists() and not Path("/tmp/mine").exists() and not Path("/dev/shm/mine").exists()
    assert first.run("hostname").split() == [first.name]
    assert second.run("ls ~ /tmp /dev/shm").count("mine") == 0
    assert len(second.run("ps -e").splitlines()) < 10
    assert machines.laptop.run(f"{SSH} ubuntu@{second.address} 'hostname; hostname -i; pwd'").split() == [
        second.name,
        second.address,
        "/home/ubuntu",
    ]
    assert first.attempt("ping -c 1 -W 1 192.0.2.1 || ip route get 192.0.2.1").code != 0, "it reaches the real network"


def test_a_kill_meets_processes_of_its_machine_only(machines: Machines) -> None:
    first, second, third = machines
    everywhere = [machine.start("exec sleep 1234.5") for machine in machines]
    own = subprocess.Popen(["sleep", "1234.5"])
    try:
        wait_until(lambda: all(matching(machine, r"^sleep 1234\.5") for machine in machines), "all sleep")
        (process,) = kill(first, r"^sleep 1234\.5")
        assert everywhere[0].wait(10) != 0
        assert process.here != process.there and not matching(first, r"^sleep 1234\.5")
        assert matching(second, r"^sleep 1234\.5") and own.poll() is None
        with pytest.raises(AssertionError, match="nothing like"):
            kill(first, r"^sleep 1234\.5")
        kill_ray(second)
        assert everywhere[1].wait(10) != 0 and not left(second)
        assert matching(third, r"^sleep 1234\.5") and own.poll() is None
        assert second.run("echo alive") == "alive\n"
    finally:
        own.kill()
        own.wait()
        kill_ray(third)
        for sleeper in everywhere:
            sleeper.communicate()


def test_a_process_of_a_run_is_killed_where_the_run_says_that_it_is(machines: Machines) -> None:
    first, second, _ = machines
    sleepers = [second.start(f"exec sleep {seconds}") for seconds in (1234.5, 1234.6)]
    wait_until(lambda: len(matching(second, r"^sleep 1234\.")) == 2, "both sleep")
    (victim,) = matching(second, r"^sleep 1234\.5")
    run = first.path("runs/told")
    run.mkdir(parents=True)
    driver = Vitals("driver", host=first.name, pid=victim.there)
    processes = [driver, replace(driver, name="actor-0", host=second.name)]
    Condition("", "training", "", 0, 1, None, 0.0, 0.0, 0.0, 1.0, processes).write(run)
    assert kill_process(machines, run, "actor-0") == victim
    assert sleepers[0].wait(10) != 0 and matching(second, r"^sleep 1234\.6")
    kill_ray(second)
    for sleeper in sleepers:
        sleeper.communicate()


def test_a_cable_can_be_pulled_out_and_put_back(machines: Machines) -> None:
    _, second, third = machines
    hello = f"{SSH} ubuntu@{second.address} hostname"
    with unplugged(second):
        assert machines.laptop.attempt(hello).code != 0
        assert machines.laptop.run(hello.replace(second.address, third.address)) == f"{third.name}\n"
        assert second.run("hostname") == f"{second.name}\n"
    assert machines.laptop.run(hello) == f"{second.name}\n"


def test_a_machine_that_went_down_comes_back_with_its_disk(machines: Machines) -> None:
    first = machines[0]
    sleeper = first.start("touch ~/kept /dev/shm/lost && exec sleep 1234.5")
    wait_until(lambda: matching(first, "^sleep"), "it sleeps")
    first.power_off()
    sleeper.communicate()
    assert sleeper.returncode != 0 and not first.processes()
    first.boot()
    assert "kept" in first.run("ls ~") and "lost" not in first.run("ls /dev/shm")
    assert machines.laptop.run(f"{SSH} ubuntu@{first.address} hostname") == f"{first.name}\n"


def test_machines_end_with_the_process_that_made_them_even_if_it_is_killed(machines: Machines, tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from tests.cluster.machines import Machines
machines = Machines(Path({str(tmp_path)!r}), number=1)
sleepers = [machine.start("exec setsid sleep 1234.5") for machine in machines.started]
while sum(process.command == "sleep 1234.5" for machine in machines.started for process in machine.processes()) < 2:
    time.sleep(0.05)
print(*(process.here for machine in machines.started for process in machine.processes()), flush=True)
time.sleep(600)
"""
    maker = subprocess.Popen(
        [sys.executable, "-c", program], cwd=HOUSE, env={**os.environ, "PYTHONPATH": str(HOUSE)}, stdout=subprocess.PIPE
    )
    assert maker.stdout is not None
    theirs = [Path("/proc", pid) for pid in maker.stdout.readline().decode().split()]
    assert sum(process.exists() for process in theirs) >= 6  # and what started these, for a moment
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    wait_until(lambda: not any(process.exists() for process in theirs), "the machines have ended", seconds=20)
