"""TensorBoard's event files: the record format and its protobufs alone."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

# The protobufs and the record format alone: `SummaryWriter` would import torch or TensorFlow, seconds each.
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.histogram_pb2 import HistogramProto
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from cluster.lock import holding
from cluster.whole_file import full_disk_told


class Events:
    """One event file of a run; every write is flushed.

    Args:
        folder: the run's; the file goes to its `events`.
        resume_step: env steps at which the run continues: TensorBoard forgets what came later. None: it does not.

    Raises:
        OSError: the disk is full or the folder cannot be written, here or in any write.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None) -> None:
        self._folder = folder
        (folder / "events").mkdir(parents=True, exist_ok=True)
        # TensorBoard orders the files of a folder by name, so by time; nanoseconds keep two writers of a second apart.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter(open(folder / "events" / name, "ab"))  # noqa: SIM115 - closed by close
        self._record(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if resume_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._record(Event(wall_time=time.time(), step=resume_step + 1, session_log=start))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one moment by tag."""
        self.summary(step, [Summary.Value(tag=tag, simple_value=number) for tag, number in values.items()])

    def text(self, tag: str, markdown: str, *, step: int = 0) -> None:
        """A text for the Text tab."""
        content = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=TensorShapeProto())
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self.summary(step, [Summary.Value(tag=tag, metadata=metadata, tensor=content)])

    def histograms(self, step: int, values: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Distributions of one moment by tag: counts (n,) and edges (n + 1,)."""
        self.summary(step, [Summary.Value(tag=tag, histo=_histogram(*value)) for tag, value in values.items()])

    def summary(self, step: int, values: list[Summary.Value]) -> None:
        """Summaries of any kind."""
        self._record(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _record(self, event: Event) -> None:
        with full_disk_told(self._folder):
            self._file.write(event.SerializeToString())
            self._file.flush()


def _histogram(counts: np.ndarray, edges: np.ndarray) -> HistogramProto:
    middles = (edges[1:] + edges[:-1]) / 2
    return HistogramProto(
        min=float(edges[0]),
        max=float(edges[-1]),
        num=float(counts.sum()),
        sum=float((counts * middles).sum()),
        sum_squares=float((counts * middles**2).sum()),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.astype(float).tolist(),
    )


@contextmanager
def added(folder: Path) -> Iterator[Events | None]:
    """A file of events beside a run's own; None while the run is being trained.

    TensorBoard reads the newest file of a folder only, so the curves of the run would stop where this one begins.
    """
    with holding(folder) as alone:
        events = Events(folder) if alone else None
        try:
            yield events
        finally:
            if events is not None:
                events.close()
