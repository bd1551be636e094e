"""The doctor on a running cluster: what differs between made-up machines, this machine's facts, one local Ray."""

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli import run
from cluster.machine_comparison import Look, compare
from cluster.machine_facts import GIB, Machine, resolved

A = Machine(
    "a",
    versions={"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0+cpu"},
    shared_memory=(8 * GIB, 7 * GIB),
    disk={"/tmp": 50 * GIB},
    gpus=(0, 0),
)
NAMES = {"a": "10.0.0.1", "b": "10.0.0.2"}
ONE = Look(A, "10.0.0.1", asked=10.0, clock=10.1, answered=10.2, names=NAMES, bandwidth={"b": 900.0})
TWO = replace(ONE, machine=replace(A, name="b"), address="10.0.0.2", bandwidth={"a": 900.0})


def found(*looks: Look) -> list[str]:
    return [str(finding) for finding in compare(looks) if finding.level != "ok"]


def other(**changes: object) -> Look:
    return replace(TWO, machine=replace(TWO.machine, **changes))


def versions(**changes: str) -> Mapping[str, str]:
    return A.versions | changes


def test_machines_that_are_alike_give_no_finding() -> None:
    assert found(ONE) == []
    assert found(ONE, TWO) == []
    # Neither the CUDA of a torch nor a Python's last number matters to what they exchange.
    assert found(ONE, other(versions=versions(torch="2.13.0+cu128", python="3.11.9"))) == []


@pytest.mark.parametrize(
    ("look", "begins", "words"),
    [
        (other(versions=versions(ray="2.59.0")), "error", "ray differs: 2.60.0 on a, 2.59.0 on b"),
        (other(versions=versions(python="3.12.1")), "error", "python differs"),
        (other(versions={"python": "3.11.7", "ray": "2.60.0"}), "error", "torch differs: 2.13.0 on a, none on b"),
        (other(shared_memory=(GIB // 16, GIB // 16)), "error", "b has 0.1 GiB in /dev/shm"),
        (other(shared_memory=(8 * GIB, GIB // 2)), "warning", "0.5 of them free"),
        (replace(TWO, promised_objects=9 * GIB), "warning", "too little for Ray's 9.0 GiB of objects"),
        (other(disk={"/tmp": 2 * GIB}), "warning", "b has 2.0 GiB free in /tmp"),
        (other(gpus=(2, 0)), "warning", "torch can use 0"),
        (replace(TWO, promised_gpus=1), "error", "1 in Ray's books, and torch can use 0"),
        (replace(other(gpus=(2, 2)), promised_gpus=1), "warning", "--num-gpus=2"),
        (replace(TWO, clock=14.5), "warning", "b is 4.3 s off"),
        (replace(TWO, clock=5.0), "warning", "b is 5.0 s off"),
        (replace(TWO, names=NAMES | {"b": "127.0.1.1"}), "error", "b takes its own name for 127.0.1.1"),
        (replace(TWO, names=NAMES | {"b": ""}), "error", "its own name for nobody"),
        (replace(TWO, names=NAMES | {"a": ""}), "warning", "b takes a for nobody: write 10.0.0.1 a"),
        (replace(TWO, bandwidth={"a": 11.0}), "warning", "11 MB/s from b to a"),
    ],
)
def test_what_is_wrong_with_one_of_two_machines_is_found(look: Look, begins: str, words: str) -> None:
    (line,) = found(ONE, look)
    assert line.startswith(begins)
    assert words in line


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert found(ONE, replace(TWO, asked=0.0, clock=0.0, answered=60.0)) == []


def test_facts_of_this_machine(tmp_path: Path) -> None:
    machine = Machine.this(shared_memory=tmp_path)
    assert machine.name
    assert {"python", "ray", "torch", "numpy"} <= machine.versions.keys()
    size, free = machine.shared_memory
    assert 0 < free <= size
    assert all(bytes_ > 0 for bytes_ in machine.disk.values())
    known, usable = machine.gpus
    assert 0 <= usable <= known


def test_names_of_this_machine() -> None:
    assert resolved("localhost") == "127.0.0.1"
    assert resolved("no-such-host.invalid") == ""


def test_address_at_which_nobody_listens_is_an_error_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert run(["doctor", "--address", address]) == 1
    assert f"nobody listens at {address}" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_local_ray_is_looked_at_and_left_running() -> None:
    import ray

    from cluster.embedded import start_ray
    from cluster.node_looks import check_cluster

    start_ray("")
    try:
        findings = [str(finding) for finding in check_cluster("")]
        assert ray.is_initialized()
        assert [line for line in findings if line.startswith("ok") and "1 of 1 answer" in line]
        assert [line for line in findings if line.startswith("ok       versions") and f"ray {ray.__version__}" in line]
        assert [line for line in findings if "GiB in /dev/shm" in line]
        assert not [line for line in findings if "bandwidth" in line or "clocks" in line]
    finally:
        ray.shutdown()
