import csv
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from cluster.projector import THUMBNAIL, sprite, write_projector

pytest.importorskip("PIL")


def config_of(run: Path) -> ProjectorConfig:
    return text_format.Parse((run / "events/projector_config.pbtxt").read_text(), ProjectorConfig())


def test_tensorboard_finds_everything_that_the_page_names(tmp_path: Path, rng: np.random.Generator) -> None:
    points = {"encoder": rng.normal(size=(5, 3)), "context": rng.normal(size=(5, 2))}
    frames = [np.full((84, 84), 40 * number, np.uint8) for number in range(5)]
    metadata = {"step": [0, 1, 2, 3, 4], "word": ["a\tb", "c\nd", "", "e", "f"], "value": [0.5, np.nan, 1e9, 2.0, -1.0]}
    write_projector(tmp_path, 1200, points, metadata, frames)
    write_projector(tmp_path, 300, {"encoder": points["encoder"]}, metadata)
    newest, other, oldest = config_of(tmp_path).embeddings
    names = ["context at 1,200 env steps", "encoder at 1,200 env steps", "encoder at 300 env steps"]
    assert [e.tensor_name for e in (newest, other, oldest)] == names
    assert list(newest.sprite.single_image_dim) == [THUMBNAIL, THUMBNAIL] and not oldest.HasField("sprite")
    values = np.loadtxt(tmp_path / "events" / other.tensor_path, delimiter="\t")
    np.testing.assert_allclose(values, points["encoder"], rtol=1e-4)
    with open(tmp_path / "events" / newest.metadata_path, newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[:3] == [["step", "word", "value"], ["0", "a b", "0.5"], ["1", "c d", ""]] and len(rows) == 6
    assert (tmp_path / "events" / newest.sprite.image_path).is_file()


def test_thumbnails_stand_in_the_order_of_the_points(tmp_path: Path) -> None:
    from PIL import Image

    frames = [np.full((10 + number, 10 + number, 3), 20 * number, np.uint8) for number in range(7)]
    folder = write_projector(tmp_path, 1, {"encoder": np.zeros((7, 2))}, {"step": list(range(7))}, frames)
    picture = np.asarray(Image.open(folder / "sprite.png"))
    assert picture.shape == (3 * THUMBNAIL, 3 * THUMBNAIL, 3)
    for number in range(7):
        row, column = divmod(number, 3)
        tile = picture[row * THUMBNAIL : (row + 1) * THUMBNAIL, column * THUMBNAIL : (column + 1) * THUMBNAIL]
        assert (tile == 20 * number).all()


def test_a_wide_frame_keeps_its_form() -> None:
    from cluster.projector import thumbnail

    square = thumbnail(np.full((40, 80, 3), 200, np.uint8))
    assert (square[:32] == 200).all() and (square[32:] == 0).all()
    assert sprite([square]).shape == (THUMBNAIL, THUMBNAIL, 3)
