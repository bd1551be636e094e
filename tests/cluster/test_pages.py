"""What TensorBoard makes of a run beside its curves: as its own pages answer its browser side."""

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from cluster.charts import CHARTS, layout
from cluster.lock import holding
from cluster.metrics import Metrics, read_metrics
from cluster.pages import described
from cluster.parsing import parsed
from tests.cluster.commands import SMALL, Contrail


def pages_of_tensorboard() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own parts
        from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
        from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
        from tensorboard.plugins.image.images_plugin import ImagesPlugin
        from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
        from tensorboard.plugins.text.text_plugin import TextPlugin
    return [ScalarsPlugin, CustomScalarsPlugin, HParamsPlugin, ImagesPlugin, TextPlugin]


class Board:
    """TensorBoard on a folder of runs, without its web server."""

    def __init__(self, logdir: Path) -> None:
        multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir)).Reload()
        plugins: dict[str, Any] = {}
        context = TBContext(
            data_provider=MultiplexerDataProvider(multiplexer, str(logdir)),
            multiplexer=multiplexer,
            logdir=str(logdir),
            plugin_name_to_instance=plugins,
            flags=SimpleNamespace(generic_data="auto"),
            sampling_hints={},
        )
        for plugin in pages_of_tensorboard():
            plugins[plugin.plugin_name] = plugin(context)
        self._apps = {name: plugin.get_plugin_apps() for name, plugin in plugins.items()}

    def ask(self, plugin: str, route: str, *, post: Any = None, **query: str) -> Any:
        client = Client(self._apps[plugin][route])
        answer = client.post("/", json=post) if post is not None else client.get("/", query_string=query)
        assert answer.status_code == 200, answer.data
        return answer.get_json() if answer.mimetype == "application/json" else answer


def charts_of(board: Board) -> dict[str, list[Any]]:
    return {category["title"]: category["chart"] for category in board.ask("custom_scalars", "/layout")["category"]}


def test_every_chart_of_a_run_has_curves_and_the_rest_is_left_out(contrail: Contrail) -> None:
    assert contrail.train("ppo", "--steps", 300, "--topology.actors", 2).code == 0
    board = Board(contrail.runs)
    shown = charts_of(board)
    assert list(shown) == ["Learning", "Staleness", "Throughput", "Health"]
    drawn = set()
    for chart in (chart for charts in shown.values() for chart in charts):
        (tag,) = chart["multiline"]["tag"]
        found = board.ask("custom_scalars", "/scalars", run="run/events", tag=tag)
        assert found["regex_valid"] and found["tag_to_events"], chart["title"]
        drawn |= set(found["tag_to_events"])
    assert {"rollout/ep_rew_mean", "eval/mean_reward", "time/fps", "staleness/max", "train/value_loss"} <= drawn
    hparams = board.ask("hparams", "/experiment", post={"experimentName": ""})
    assert {"recipe", "lr", "steps", "topology.actors"} <= {info["name"] for info in hparams["hparamInfos"]}
    wanted = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 9, "startIndex": 0}
    (session,) = board.ask("hparams", "/session_groups", post=wanted)["sessionGroups"]
    assert session["name"] == "run/events", "no run of its own"
    assert session["hparams"]["recipe"] == "ppo" and session["hparams"]["topology.actors"] == 2.0
    metrics = {metric["name"]["tag"]: metric["value"] for metric in session["metricValues"]}
    assert metrics["eval/mean_reward"] == pytest.approx(read_metrics(contrail.runs / "run")[-1]["eval/mean_reward"])
    (text,) = board.ask("text", "/text", run="run/events", tag="experiment")
    for words in ("<code>ppo</code>", "<code>--topology.local", "<td>lr</td>", "<td>torch</td>", "Experiment(env"):
        assert words in text["text"]


def test_charts_of_several_runs_are_drawn_once(tmp_path: Path) -> None:
    for name, tags in (("a", ["train/value_loss"]), ("b", ["train/value_loss", "contrast/loss", "contrast/loss_1"])):
        (tmp_path / name).mkdir()
        with Metrics(tmp_path / name) as metrics:
            metrics.write(1, dict.fromkeys(tags, 1.0))
            metrics.write(2, {"train/clip_fraction": 1.0})
    board = Board(tmp_path)
    shown = charts_of(board)
    titles = {category: [chart["title"] for chart in charts] for category, charts in shown.items()}
    assert titles["Contrastive"] == ["loss"] and titles["Learning"].count("value loss") == 1
    assert "clipped fraction" not in titles["Learning"], "the first learner step tells which there are"
    (tag,) = shown["Contrastive"][0]["multiline"]["tag"]
    found = board.ask("custom_scalars", "/scalars", run="b/events", tag=tag)["tag_to_events"]
    assert set(found) == {"contrast/loss", "contrast/loss_1"}


def test_numbers_without_a_chart_make_no_page() -> None:
    assert layout(["probe/accuracy", "a/b"]) is None


def test_every_tag_of_a_chart_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "runs-and-metrics.md").read_text()
    for chart in (chart for charts in CHARTS.values() for chart in charts):
        for word in re.findall(r"[a-z_]{4,}", chart.tags.partition("/")[2]):
            assert word in text, chart.title


def test_an_episode_of_the_evaluation_moves_among_the_images(contrail: Contrail) -> None:
    pytest.importorskip("PIL")
    flags = ("--env", "actors.envs:StaticRecall-v0", "--steps", 64)
    assert contrail.train("cpc_ppo", *flags, "--run.film").code == 0
    run = contrail.runs / "run"
    first = (run / "evaluation.gif").read_bytes()
    outcome = contrail("evaluate", run, "--episodes", 1, "--film", "--sample", "--seed", 3)
    assert outcome.code == 0 and f"{run}/evaluation.gif, and eval/episode_sampled_seed_3 among" in outcome.out
    board = Board(contrail.runs)
    films = {"eval/episode": first, "eval/episode_sampled_seed_3": (run / "evaluation.gif").read_bytes()}
    assert set(board.ask("images", "/tags")["run/events"]) == set(films)
    for tag, film in films.items():
        (image,) = board.ask("images", "/images", run="run/events", tag=tag, sample="0")
        answer = board.ask("images", "/individualImage", blob_key=image["query"].partition("=")[2])
        assert answer.data == film and answer.mimetype == "image/gif"
    before = set((run / "events").iterdir())
    with holding(run):
        outcome = contrail("evaluate", run, "--episodes", 1, "--film")
    assert outcome.code == 0 and "not for TensorBoard, since the run is being trained" in outcome.out
    assert set((run / "events").iterdir()) == before, "a newer file would end the reading of the run's own"


def test_a_look_at_a_run_that_is_being_trained_does_not_end_its_curves(contrail: Contrail) -> None:
    """TensorBoard reads the newest file of a folder only."""
    assert contrail.train("ppo", "--steps", 64).code == 0
    run = contrail.runs / "run"
    before = set((run / "events").iterdir())
    with holding(run):
        assert contrail("inspect", run).code == 0
        outcome = contrail("probe", run, "--steps", 100, "--no-projector")
    assert outcome.code == 0 and "the numbers are in probe.json alone" in outcome.out
    assert set((run / "events").iterdir()) == before
    assert contrail("inspect", run).code == 0
    assert len(set((run / "events").iterdir())) == len(before) + 1


def test_what_cannot_be_filmed_is_refused_before_anything_runs(contrail: Contrail) -> None:
    outcome = contrail.train("ppo", "--env", "tests.cluster.faulty:Faulty-v0", "--run.film")
    assert outcome.code == 2 and "cannot be shown: it does not render, nor observe images" in outcome.sentence
    assert not contrail.runs.exists()


def test_parameters_are_all_arguments_with_the_topology_resolved() -> None:
    flags = [*SMALL, "--lr", "0.5"]
    *_, found = parsed("ppo", flags)
    assert (found["recipe"], found["lr"], found["envs"], found["kl_target"]) == ("ppo", 0.5, 4, "None")
    assert found["topology.learners"] == 1 and found["topology.local"] is True
    assert json.loads(json.dumps(found)) == found


def test_a_recipe_file_is_run_once(tmp_path: Path) -> None:
    source = tmp_path / "counted_recipe.py"
    source.write_text(
        "from pathlib import Path\nfrom recipes.ppo import ppo\n\n"
        f"with Path({str(tmp_path / 'times')!r}).open('a') as file:\n    file.write('x')\n\n\n"
        "def mine(lr: float = 0.25):\n    return ppo(lr=lr)\n"
    )
    *_, found = parsed(f"{source}:mine", [])
    assert found == {"recipe": f"{source}:mine", "lr": 0.25} and (tmp_path / "times").read_text() == "x"


def test_a_description_that_lacks_parts_is_shown_without_them() -> None:
    assert described({"recipe": "ppo"}) == "- recipe: `ppo`"
