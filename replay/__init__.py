"""The store: rows in shared-memory Arrow segments, and tables that say how they are read.

A `Writer` puts rows into `Segment`s and sends a `Commit` of a few numbers to a `Shard`, which is an
index; a `Sampler` asks shards for draws and copies the rows into batches. Nothing here knows tensors,
environments or processes.
"""

from replay.messages import Commit, Draw, Items, NotReady, SegmentInfo
from replay.sampler import Sampler, ShardLike
from replay.schema import Column, Schema, SchemaError
from replay.segment import Segment, StoreFull
from replay.shard import CommitLost, Shard
from replay.table import Table, TableError
from replay.writer import Writer

__all__ = [
    "Column",
    "Commit",
    "CommitLost",
    "Draw",
    "Items",
    "NotReady",
    "Sampler",
    "Schema",
    "SchemaError",
    "Segment",
    "SegmentInfo",
    "Shard",
    "ShardLike",
    "StoreFull",
    "Table",
    "TableError",
    "Writer",
]
