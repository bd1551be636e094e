"""What TensorBoard shows of a run beside its curves: its hyper-parameters, its description, its episodes."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

Parameter = bool | int | float | str


def session_start(parameters: Mapping[str, Parameter]) -> Summary.Value:
    """A run's hyper-parameters for the HParams page, which adds the last value of every curve of the run.

    There is no list of all parameters, as `add_hparams` writes one: TensorBoard would take the first run's for those of
    all, and hide what only other recipes have.
    """
    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in parameters.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = value
    return _hparams("_hparams_/session_start_info", HParamsPluginData(session_start_info=info))


def session_end() -> Summary.Value:
    """The run came to its end. TensorBoard keeps the first that it reads: one that may be continued has none."""
    info = SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time())
    return _hparams("_hparams_/session_end_info", HParamsPluginData(session_end_info=info))


def _hparams(tag: str, content: HParamsPluginData) -> Summary.Value:
    """What the plugin reads is in the metadata; it wants some tensor beside it."""
    data = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    nothing = TensorProto(dtype=DT_FLOAT, float_val=[0.0], tensor_shape=TensorShapeProto())
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data), tensor=nothing)


def gif(tag: str, path: Path) -> Summary.Value:
    """A GIF as an image: it moves on the Images page."""
    content = path.read_bytes()
    width, height = (int.from_bytes(content[at : at + 2], "little") for at in (6, 8))
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
    return Summary.Value(tag=tag, image=image)


def described(experiment: Mapping[str, Any]) -> str:
    """What `experiment.json` says of a run, as Markdown for the Text page."""
    facts = {name: experiment[name] for name in ("recipe", "commit") if experiment.get(name)}
    host = experiment.get("host", {})
    facts |= {"host": f"{host.get('name')}, {host.get('cores')} cores, {host.get('system')}"} if host else {}
    parts = ["\n".join(f"- {name}: `{value}`" for name, value in facts.items())]
    if command := experiment.get("arguments"):
        parts.append("given: `" + " ".join(map(str, command)) + "`")
    for title in ("parameters", "versions"):
        if values := experiment.get(title):
            parts.append(f"### {title}\n\n" + _table(values))
    if resolved := experiment.get("experiment"):
        parts.append(f"### resolved\n\n```\n{_lines(str(resolved))}\n```")
    return "\n\n".join(parts)


def _table(values: Mapping[str, Any]) -> str:
    cells = {name: json.dumps(value).replace("|", "\\|") for name, value in values.items()}
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | `{cell}` |" for name, cell in cells.items())])


def _lines(text: str, width: int = 110) -> str:
    """A long `repr`, broken after commas."""
    lines, line = [], ""
    for part in text.split(", "):
        if line and len(line) + len(part) > width:
            lines.append(line)
            line = "    "
        line += part + ", "
    return "\n".join([*lines, line.removesuffix(", ")])
