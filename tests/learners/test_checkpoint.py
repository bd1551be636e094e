from pathlib import Path

import pytest
import torch

from learners import checkpoint


def test_tensors_and_values_come_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", {"x": torch.arange(3)}, {"version": 7})
    tensors, values = checkpoint.load(tmp_path / "a")
    assert torch.equal(tensors["x"], torch.arange(3)) and values == {"version": 7}


def test_a_death_while_writing_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "a", {"x": torch.zeros(2)}, {"version": 1})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("learners.checkpoint.os.fsync", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "a", {"x": torch.ones(2)}, {"version": 2})
    assert checkpoint.load(tmp_path / "a")[1] == {"version": 1}


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", {"x": torch.zeros(2)}, {})
    (tmp_path / "a" / "tensors.safetensors").write_bytes(b"nonsense")
    with pytest.raises(checkpoint.CheckpointError, match="a is not a readable checkpoint"):
        checkpoint.load(tmp_path / "a")
