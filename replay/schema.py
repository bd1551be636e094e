"""Columns: the names, dtypes and shapes of one row."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import pyarrow as pa

DTYPES = (
    *("uint8", "uint16", "uint32", "uint64"),
    *("int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
RESERVED = ("stream", "start", "row", "item", "probability", "writer")  # what samplers and archives add


class SchemaError(ValueError):
    """Columns that cannot be stored, or that are not the ones agreed on."""


@dataclass(frozen=True)
class Column:
    """The dtype and shape of one row's entry in a column.

    Args:
        dtype: a numpy name of an integer or a float. Flags are uint8: Arrow stores booleans
            as bits, which numpy cannot view.
        shape: of one entry; () for a scalar.

    Raises:
        SchemaError: the dtype is not one of those, or a dimension is not positive.
    """

    dtype: str
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        try:
            name = np.dtype(self.dtype).name
        except TypeError:
            name = self.dtype
        if name not in DTYPES:
            hint = "; store flags as uint8" if name == "bool" else ""
            raise SchemaError(f"dtype {self.dtype!r} cannot be a column: wanted one of {', '.join(DTYPES)}{hint}")
        if any(size < 1 for size in self.shape):
            raise SchemaError(f"shape {self.shape} cannot be a column: every dimension must be at least 1")
        object.__setattr__(self, "dtype", name)  # "f4" and "float32" are the same column

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry."""
        return np.dtype(self.dtype).itemsize * prod(self.shape)

    def arrow(self) -> pa.DataType:
        """The Arrow type: a primitive for a scalar, else a fixed-shape tensor."""
        value = pa.from_numpy_dtype(np.dtype(self.dtype))
        return pa.fixed_shape_tensor(value, self.shape) if self.shape else value

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


ROW = {
    "log_prob": Column("float32"),
    "reward": Column("float32"),
    "discounted_return": Column("float32"),
    "terminated": Column("uint8"),
    "truncated": Column("uint8"),
    "mask": Column("uint8"),
    "episode": Column("int64"),
    "step": Column("int32"),
    "policy_version": Column("int64"),
}
"""The columns that every row has beside its observation, action and extras."""


@dataclass(frozen=True)
class Schema:
    """The columns of a row, by name, in the order in which they are stored."""

    columns: dict[str, Column]

    def __post_init__(self) -> None:
        if not self.columns:
            raise SchemaError("a schema needs at least one column")
        for name in RESERVED:
            if name in self.columns:
                raise SchemaError(f'column "{name}" is a name that the sampler adds to every batch; choose another')

    @classmethod
    def of_rows(
        cls, observation: Mapping[str, Column], action: Column, extras: Mapping[str, Column] | None = None
    ) -> "Schema":
        """The schema of rows: observations, action, the usual columns, then a policy's extras.

        Args:
            observation: columns named "observation" or "observation.<key>".
            action: what the policy chooses.
            extras: further columns that the policy records, e.g. "value".

        Raises:
            SchemaError: a name is taken, or an observation column is not named as one.
        """
        for name in observation:
            if not _is_observation(name):
                raise SchemaError(f'observation column "{name}": wanted "observation" or "observation.<key>"')
        columns = {**observation, "action": action, **ROW}
        for name in extras or {}:
            if name in columns or _is_observation(name):
                raise SchemaError(f'extra column "{name}": the name is taken; choose another')
        return cls({**columns, **(extras or {})})

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> "Schema":
        """The same columns, read back from an Arrow schema."""
        return cls({field.name: _column(field) for field in schema})

    def arrow(self, metadata: Mapping[str, str] | None = None) -> pa.Schema:
        """The Arrow schema of a segment, with file metadata."""
        fields = [pa.field(name, column.arrow(), nullable=False) for name, column in self.columns.items()]
        return pa.schema(fields, metadata=dict(metadata or {}))

    @property
    def observation_columns(self) -> list[str]:
        """Names of the columns that together are the observation."""
        return [name for name in self.columns if _is_observation(name)]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all columns."""
        return sum(column.row_bytes for column in self.columns.values())

    def check(self, values: Mapping[str, np.ndarray], count: int) -> None:
        """Refuse values that are not `count` entries of the columns that they name.

        Raises:
            SchemaError: a name is unknown, or a dtype or shape differs; names the column.
        """
        for name, value in values.items():
            if name not in self.columns:
                raise SchemaError(f'column "{name}" is not in the schema, which has {", ".join(self.columns)}')
            column = self.columns[name]
            wanted = (np.dtype(column.dtype), (count, *column.shape))
            if (value.dtype, value.shape) != wanted:
                raise SchemaError(f'column "{name}": got {value.dtype} {value.shape}, wanted {wanted[0]} {wanted[1]}')

    def check_complete(self, values: Mapping[str, np.ndarray], count: int) -> None:
        """Refuse values that are not whole rows: `check`, and no column missing."""
        self.check(values, count)
        missing = [name for name in self.columns if name not in values]
        if missing:
            raise SchemaError(f"a row lacks {', '.join(missing)}; got {', '.join(values)}")


def _is_observation(name: str) -> bool:
    return name == "observation" or name.startswith("observation.")


def _column(field: pa.Field) -> Column:
    if isinstance(field.type, pa.FixedShapeTensorType):
        return Column(np.dtype(field.type.value_type.to_pandas_dtype()).name, tuple(field.type.shape))
    try:
        return Column(np.dtype(field.type.to_pandas_dtype()).name)
    except (NotImplementedError, SchemaError) as error:
        raise SchemaError(f'column "{field.name}" has Arrow type {field.type}, which no row can have') from error
