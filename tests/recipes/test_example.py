from pathlib import Path

import pytest

from cluster.experiment import Topology
from cluster.recipe import find_recipe
from tests.cluster.worlds import world_of

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.mark.parametrize("example", ["my_recipe.py:my_recipe", "history.py:history"])
def test_the_documentations_recipes_train(example: str, tmp_path: Path) -> None:
    recipe = find_recipe(f"{EXAMPLES}/{example}")
    with world_of(recipe(topology=Topology(actors=1, learners=1, local=True)), tmp_path) as world:
        assert [world.advance().version for _ in range(2)] == [1, 2]
