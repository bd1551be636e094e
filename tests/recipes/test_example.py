from pathlib import Path

from cluster.experiment import Topology
from cluster.recipe import find_recipe
from tests.cluster.worlds import world_of

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "my_recipe.py"


def test_the_readmes_recipe_trains(tmp_path: Path) -> None:
    recipe = find_recipe(f"{EXAMPLE}:my_recipe")
    with world_of(recipe(topology=Topology(actors=1, learners=1, local=True)), tmp_path) as world:
        assert [world.advance().version for _ in range(2)] == [1, 2]
