"""The names of segments' files: WRITER-000012.arrow, or WRITER.free-000012 while it waits to be written again."""

from pathlib import Path


def writer_of(segment: Path) -> str:
    """The name of a segment's writer."""
    return segment.stem.rpartition("-")[0]


def index_of(segment: Path) -> int:
    """A segment's number among those of its writer."""
    return int(segment.stem.rpartition("-")[2])


def files_of(folder: Path, writer: str) -> list[Path]:
    """A writer's segments; not those of one whose name only begins alike."""
    return [path for path in folder.glob(f"{writer}-[0-9]*.arrow") if writer_of(path) == writer]


def free_of(folder: Path, writer: str) -> list[Path]:
    """Released segments that wait for their writer; not those of a writer whose name only begins alike."""
    return list(folder.glob(f"{writer}.free-[0-9]*"))
