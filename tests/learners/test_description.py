import json
import sys
import types
from dataclasses import dataclass, replace

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.description import Description, DescriptionError
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp, Nature, SmallConv
from replay.schema import Column

VECTOR = {"observation": Column("float32", (3,))}
PLAIN = Description(ActorCritic(Mlp()), VECTOR, gym.spaces.Discrete(2))

# Plain numbers, of which the test makes specs: inside a strategy, beartype's use of `random` would be held against us.
encoders = st.tuples(st.sampled_from([Mlp, Nature, SmallConv]), st.lists(st.integers(1, 99), min_size=1, max_size=3))
bounds = st.floats(-1e6, 0, width=32) | st.just(-np.inf)
action_spaces = st.one_of(
    st.builds(lambda n, start: gym.spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-3, 3)),
    st.lists(st.integers(1, 5), min_size=1, max_size=3).map(gym.spaces.MultiDiscrete),
    st.integers(1, 9).map(gym.spaces.MultiBinary),
    st.lists(bounds, min_size=1, max_size=3).map(
        lambda low: gym.spaces.Box(np.array(low, np.float32), -np.array(low, np.float32), dtype=np.float32)
    ),
)


def encoder_of(drawn: tuple[type, list[int]] | None):
    if drawn is None:
        return None
    kind, widths = drawn
    return Mlp(tuple(widths), "relu") if kind is Mlp else kind(widths[0])


@given(
    encoder=encoders,
    value_encoder=st.none() | encoders,
    core=st.none() | st.integers(1, 64),
    stack=st.integers(1, 4),
    flags=st.tuples(st.booleans(), st.booleans()),
    space=action_spaces,
)
def test_what_is_described_comes_back(encoder, value_encoder, core, stack, flags, space: gym.Space) -> None:
    model = ActorCritic(
        encoder_of(encoder),
        Gru(core) if core else None,
        encoder_of(value_encoder),
        stack=stack,
        normalise=flags[0],
        precision="bf16" if flags[1] else "fp32",
    )
    columns = {"observation.camera": Column("uint8", (84, 84)), "observation.place": Column("float64")}
    before = Description(model, columns, space, {"environment": {"id": "x", "kwargs": {}}, "steps": 3})
    text = before.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    after = Description.from_json(text, where="here")
    assert after.model == before.model and after.observation == before.observation and after.facts == before.facts
    assert after.action_space == space and after.action_space.dtype == space.dtype


@dataclass(frozen=True)
class Mine:
    """An encoder of a user's own."""

    width: int = 5

    def build(self, columns):
        return Mlp((self.width,)).build(columns)


def test_a_class_of_ones_own_is_found_once_its_module_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("somebodys")
    own = dataclass(frozen=True)(type("Mine", (), {"__annotations__": {"width": int}, "build": Mine.build}))
    own.__module__, own.__qualname__, module.Mine = "somebodys", "Mine", own
    monkeypatch.setitem(sys.modules, "somebodys", module)
    text = Description(ActorCritic(own(7)), VECTOR, gym.spaces.Discrete(2)).to_json()
    assert Description.from_json(text, where="here").build().features == 7
    monkeypatch.delitem(sys.modules, "somebodys")
    with pytest.raises(DescriptionError, match="here: the model uses Mine of the module somebodys: import it before"):
        Description.from_json(text, where="here")


def test_a_description_does_not_import_what_it_likes() -> None:
    text = PLAIN.to_json().replace("learners.nets.encoders:Mlp", "this:Mlp")
    with pytest.raises(DescriptionError, match="import it before loading"):
        Description.from_json(text, where="here")
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("learners.nets.encoders:Mlp", "learners.nets.encoders:os"), "has no dataclass os"),
        (("learners.nets.encoders:Mlp", "learners.nets.later:Mlp"), "no learners.nets.later: update it"),
        (('"widths"', '"depths"'), "is not what it was when this was written"),
        (('"Discrete"', '"Text"'), "action space 'Text' is not known"),
        (('"contrail_policy": 1', '"contrail_policy": 2'), "written by a later version"),
        (('"float32"', '"float31"'), "does not describe a policy"),
        (('"model": {', '"network": {'), "does not describe a policy"),
        (("{", "["), "does not describe a policy"),
        (("learners.model:ActorCritic", "learners.nets.cores:Gru"), "is not what it was"),
    ],
)
def test_a_damaged_description_is_refused_in_a_sentence(change: tuple[str, str], words: str) -> None:
    text = PLAIN.to_json()
    assert change[0] in text
    with pytest.raises(DescriptionError) as failure:
        Description.from_json(text.replace(*change), where="policy.pt2")
    assert words in str(failure.value) and str(failure.value).startswith("policy.pt2")


def test_what_json_has_no_form_for_is_named() -> None:
    with pytest.raises(DescriptionError, match=r"model\.encoder is .*Encoder.* which JSON has no form for"):
        Description(replace(PLAIN.model, encoder=Encoder()), VECTOR, gym.spaces.Discrete(2)).to_json()
    with pytest.raises(DescriptionError, match=r"action space .* cannot be described"):
        replace(PLAIN, action_space=gym.spaces.Text(3)).to_json()


class Encoder:
    def build(self, columns):
        return Mlp().build(columns)
