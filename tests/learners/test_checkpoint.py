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


@pytest.mark.parametrize("swapped", [True, False])
def test_a_checkpoint_that_is_written_again_is_there_all_the_time(
    swapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_exchanged", checkpoint._exchanged if swapped else lambda one, other: False)
    checkpoint.save(tmp_path / "a", {"x": torch.zeros(2)}, {"version": 1})
    removed, remove = [], checkpoint.shutil.rmtree

    def watched(folder: Path, **how: bool) -> None:
        if folder.exists():
            removed.append((checkpoint.values(tmp_path / "a")["version"], checkpoint.values(folder)["version"]))
        remove(folder, **how)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", watched)
    checkpoint.save(tmp_path / "a", {"x": torch.ones(2)}, {"version": 2})
    assert removed == [(2, 1)], "the old one goes when the new one has its name"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_folders_swap_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    assert checkpoint._exchanged(tmp_path / "a", tmp_path / "b") == ((tmp_path / "a" / "name").read_text() == "b")
    assert not checkpoint._exchanged(tmp_path / "a", tmp_path / "none")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", {"x": torch.zeros(2)}, {})
    (tmp_path / "a" / "tensors.safetensors").write_bytes(b"nonsense")
    with pytest.raises(checkpoint.CheckpointError, match="a is not a readable checkpoint"):
        checkpoint.load(tmp_path / "a")
