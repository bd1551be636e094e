"""Windows start where the policy was, or where rows before them lead with the present weights."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners.burn_in import burn_in_rows, burnt_in
from learners.learner import Learner
from learners.model import ActorCritic, Model
from learners.nets.cores import CoreSpec, Gru
from learners.nets.encoders import Mlp, SmallConv
from learners.nets.transformer import Transformer
from learners.policy import ModelPolicy
from replay.schema import Column
from replay.table import Table

VECTOR = {"observation": Column("float32", (3,))}
FRAMES = {"observation": Column("uint8", (32, 32))}
ACTIONS = gym.spaces.Discrete(4)
STREAMS, ROWS = 3, 24
CORES = [Gru(8), Transformer(hidden=8, layers=2, heads=2, memory=4)]


def spec_of(core: CoreSpec, stack: int = 0) -> ActorCritic:
    return ActorCritic(SmallConv(8), core=core, stack=stack) if stack else ActorCritic(Mlp((8,)), core=core)


def stream_of_rows(model: Model) -> dict[str, np.ndarray]:
    """Rows (STREAMS, ROWS) that a policy with the model's weights acted on, with episodes of random length."""
    rng, description = np.random.default_rng(0), model.spec
    columns = FRAMES if model.image_columns else VECTOR
    policy = ModelPolicy(description.build(columns, ACTIONS))
    policy.load(0, model.acting_weights())
    state, first, rows = policy.initial_state(STREAMS), np.ones(STREAMS, np.bool_), []
    step, episode = np.zeros(STREAMS, np.int32), np.zeros(STREAMS, np.int64)
    for _ in range(ROWS):
        shape = (STREAMS, *columns["observation"].shape)
        seen = rng.integers(0, 256, shape, dtype=np.uint8) if model.image_columns else rng.random(shape, np.float32)
        acted, state = policy.act({"observation": seen}, state, first, rng)
        rows.append({"observation": seen, "step": step, "episode": episode, **acted})
        first = rng.random(STREAMS) < 0.15
        step, episode = np.where(first, 0, step + 1).astype(np.int32), episode + first
    flags = dict.fromkeys(("mask", "reward", "terminated", "truncated"), np.ones((STREAMS, ROWS), np.uint8))
    return {name: np.stack([row[name] for row in rows], 1) for name in rows[0]} | flags


class Around:
    """All that a learner needs around it: gives it one batch, and keeps what an update is given."""

    def __init__(self, drawn: dict[str, np.ndarray]) -> None:
        self.drawn, self.objectives, self.priorities, self.batch, self.moments = drawn, {}, {}, {}, {}

    def read(self, step):
        return {"fresh": self.drawn}

    def prioritise(self, table, items, priorities):
        raise AssertionError("no table has priorities")

    def close(self):
        pass

    def publish(self, version, weights):
        pass

    def start(self, model, group):
        return self

    def step(self, batches, *, progress):
        self.batch = batches["fresh"]
        return {}

    def state(self):
        return {}

    def restore(self, state):
        pass


def batch_of(model: Model, rows: dict[str, np.ndarray], start: int, *, lead: int) -> dict[str, torch.Tensor]:
    """What a learner makes of the rows from `start` on, the lead before them repeated where the stream begins."""
    index = np.maximum(np.arange(start - lead, ROWS), 0)
    drawn = {name: column[:, index] for name, column in rows.items()}
    drawn["policy_version"] = np.zeros(drawn["step"].shape, np.int64)
    table, there = Table(batch=STREAMS, window=ROWS - start, lead=lead), Around(drawn)
    Learner(model, (there,), tables={"fresh": table}, read=there, publish=there, total_steps=1).step()
    return there.batch


def moved(model: Model) -> Model:
    """The same model after some learning."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("stack", "lead"), [(0, 0), (0, 5), (3, 2), (3, 6)])
def test_the_learner_computes_what_the_policy_recorded_wherever_a_window_starts(
    core: CoreSpec, stack: int, lead: int
) -> None:
    model = spec_of(core, stack).build(FRAMES if stack else VECTOR, ACTIONS)
    rows = stream_of_rows(model)
    for start in (0, 1, 3, 7, 16):
        batch = batch_of(model, rows, start, lead=lead)
        out = model(batch)
        torch.testing.assert_close(out.dist.log_prob(batch["action"]), batch["log_prob"], rtol=0, atol=1e-5)
        torch.testing.assert_close(out.value, batch["value"], rtol=0, atol=1e-5)
        assert ("start_state" in batch) == (lead > max(0, stack - 1))


@pytest.mark.parametrize("core", CORES)
def test_rows_before_the_window_make_its_state_with_the_present_weights(core: CoreSpec) -> None:
    model = spec_of(core).build(VECTOR, ACTIONS)
    rows = stream_of_rows(model)
    model = moved(model)
    batch = batch_of(model, rows, 12, lead=12)
    whole = batch_of(model, rows, 0, lead=0)
    with torch.no_grad():
        expected = model({name: column[:, :12] for name, column in whole.items()}).core_state
    torch.testing.assert_close(batch["start_state"][:, 0], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(batch["start_state"][:, 0], batch["core_state"][:, 0], atol=1e-3)
    torch.testing.assert_close(model(batch).value, model(whole).value[:, 12:], rtol=0, atol=1e-5)
    assert torch.equal(batch["core_state"], torch.from_numpy(rows["core_state"][:, 12:])), "a recorded column changed"


def test_no_gradient_reaches_the_rows_before_the_window() -> None:
    model = spec_of(Gru(8)).build(VECTOR, ACTIONS)
    batch = batch_of(model, stream_of_rows(model), 12, lead=4)
    assert not batch["start_state"].requires_grad


@pytest.mark.parametrize("core", CORES)
def test_a_stream_too_young_for_its_lead_starts_from_the_recorded_state(core: CoreSpec) -> None:
    model = moved(spec_of(core).build(VECTOR, ACTIONS))
    rows = stream_of_rows(model)
    for start, young in ((2, True), (5, True), (6, False)):
        batch = batch_of(moved(model), rows, start, lead=6)
        same = torch.equal(batch["start_state"][:, 0], batch["core_state"][:, 0])
        assert same == young, start


def test_frame_stacks_have_their_lead_rows_first() -> None:
    framed = spec_of(Gru(8), 3).build(FRAMES, ACTIONS)
    assert [burn_in_rows(framed, lead) for lead in (0, 2, 3, 8)] == [0, 0, 1, 6]
    vector = spec_of(Gru(8)).build(VECTOR, ACTIONS)
    assert burn_in_rows(vector, 8) == 8
    plain = replace(spec_of(Gru(8)), core=None).build(VECTOR, ACTIONS)
    assert burn_in_rows(plain, 8) == 0
    assert burnt_in(plain, {}, lead=8) == {}
