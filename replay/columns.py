"""Arrow arrays over bytes that are there already, and the bytes of Arrow arrays; no copies."""

import pyarrow as pa


def array_of(kind: pa.DataType, rows: int, values: pa.Buffer) -> pa.Array:
    """An array of a primitive or fixed-shape tensor type over its values, one row after another."""
    if not isinstance(kind, pa.FixedShapeTensorType):
        return pa.Array.from_buffers(kind, rows, [None, values])
    storage = kind.storage_type
    flat = pa.Array.from_buffers(storage.value_type, rows * storage.list_size, [None, values])
    return pa.ExtensionArray.from_storage(kind, pa.Array.from_buffers(storage, rows, [None], children=[flat]))


def values_of(array: pa.Array, size: int) -> pa.Buffer:
    """The first `size` bytes of a whole array's values; fewer where it has no more."""
    return array.buffers()[-1].slice(0, size)
