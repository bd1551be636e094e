import numpy as np
import pyarrow as pa
import pytest

from replay import Column, Schema, SchemaError
from replay.schema import DTYPES


def test_every_dtype_and_shape_survives_arrow():
    columns = {f"{dtype}{len(shape)}": Column(dtype, shape) for dtype in DTYPES for shape in ((), (3,), (2, 3, 4))}
    schema = Schema(columns)
    arrow = schema.arrow({"who": "me"})
    assert Schema.from_arrow(arrow) == schema
    assert arrow.metadata == {b"who": b"me"}
    assert schema.row_bytes == sum((1 + 3 + 24) * np.dtype(dtype).itemsize for dtype in DTYPES)


def test_scalars_are_primitives_and_shapes_are_tensors():
    arrow = Schema({"a": Column("int32"), "b": Column("uint8", (84, 84))}).arrow()
    assert arrow.field("a").type == pa.int32()
    assert arrow.field("b").type == pa.fixed_shape_tensor(pa.uint8(), (84, 84))


def test_short_names_are_the_same_column():
    assert Column("f4") == Column("float32")


@pytest.mark.parametrize("dtype", ["bool", "object", "str", "datetime64[s]", "complex64", "nonsense"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(SchemaError, match="cannot be a column"):
        Column(dtype)


def test_bool_says_what_to_do():
    with pytest.raises(SchemaError, match="uint8"):
        Column("bool")


def test_empty_dimensions_are_refused():
    with pytest.raises(SchemaError, match=r"\(3, 0\)"):
        Column("uint8", (3, 0))


def test_rows_have_the_usual_columns():
    schema = Schema.of_rows({"observation.a": Column("uint8")}, Column("int64"), {"value": Column("float32")})
    assert list(schema.columns) == [
        *("observation.a", "action", "log_prob", "reward", "discounted_return", "terminated", "truncated"),
        *("mask", "episode", "step", "policy_version", "value"),
    ]
    assert schema.columns["step"] == Column("int32")
    assert schema.observation_columns == ["observation.a"]


@pytest.mark.parametrize("name", ["reward", "observation.other", "start"])
def test_taken_names_are_refused(name):
    with pytest.raises(SchemaError, match=name):
        Schema.of_rows({"observation": Column("uint8")}, Column("int64"), {name: Column("float32")})


def test_observations_are_named_as_such():
    with pytest.raises(SchemaError, match="frame"):
        Schema.of_rows({"frame": Column("uint8")}, Column("int64"), {})


def test_foreign_arrow_types_are_refused():
    with pytest.raises(SchemaError, match="text"):
        Schema.from_arrow(pa.schema([("text", pa.string())]))
