"""The command line: contrail COMMAND ...; `USAGE` lists the commands.

Exit codes: 0 done, 2 a mistake of the user's, 128 + n stopped in order by signal n (130 is Ctrl-C), 1 anything else.
A failure is one sentence; its traceback is kept in the run's logs, and shown only where there is no run yet and nobody
foresaw it.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

USAGE = """\
contrail: actors explore, a sharded store streams, learners learn.

  contrail train RECIPE [flags]      train; RECIPE is one of those below, or my_file.py:function
  contrail train RECIPE --help       a recipe's flags
  contrail sweep RECIPE [flags]      train with every combination of the values of flags, by Ray Tune
  contrail scale RECIPE [flags]      measure how its speed grows with actors and learners, and what limits it
  contrail resume RUN                continue a run that was stopped or died
  contrail status RUN                how a run is that was started anywhere, process by process
  contrail checkpoint RUN            let a run that goes on write a checkpoint now, and wait for it
  contrail watch RUN                 the live table of a run that somebody else started, until it ends
  contrail evaluate RUN [flags]      play a run's newest checkpoint
  contrail play RUN [flags]          film episodes of a run's policy, as a GIF or MP4
  contrail probe RUN [flags]         what can be read from a run's representation, and a page to look at it
  contrail query RUN SQL [flags]     ask a run's rows, episodes, draws and versions in SQL
  contrail inspect RUN               show what a run's store holds
  contrail limit RUN TABLE [flags]   change a table's limits while the run goes on
  contrail scale-actors RUN N        more or fewer actors while the run goes on
  contrail replay RUN --step N       make a learner step again from its rows, and compare it bit for bit
  contrail import SOURCE STORE       make a store of rows from a .parquet or .jsonl file, or from Minari
  contrail export RUN [TARGET]       write a run's policy (safetensors, pt2, onnx) or its rows for others to use
  contrail plan RECIPE [flags]       foretell speed, lag, memory and cost of more processes, and what breaks first
  contrail doctor [FILE]             look for what would go wrong on a cluster, before it starts or while it runs
  contrail --help                    this

"""

COMMANDS = {
    "train": "cluster.commands:command_train",
    "sweep": "cluster.sweep:command_sweep",
    "scale": "cluster.scale:command_scale",
    "resume": "cluster.commands:command_resume",
    "status": "cluster.status:command_status",
    "checkpoint": "cluster.checkpoint_request:command_checkpoint",
    "watch": "cluster.status:command_watch",
    "evaluate": "cluster.commands:command_evaluate",
    "query": "cluster.query:command_query",
    "inspect": "cluster.store_commands:command_inspect",
    "limit": "cluster.store_commands:command_limit",
    "scale-actors": "cluster.scaling_command:command_scale_actors",
    "replay": "cluster.store_commands:command_replay",
    "import": "cluster.exchange_commands:command_import",
    "export": "cluster.exchange_commands:command_export",
    "play": "cluster.model_commands:command_play",
    "probe": "cluster.probe_command:command_probe",
    "doctor": "cluster.doctor:command_doctor",
    "plan": "cluster.plan:command_plan",
}
"""By name, where each is: a command imports what it needs, and no other's."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `contrail` command."""
    # numpy reads it once. Actors compute by numpy, in one thread, however many torch has.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # An installed command does not look where it is called; environments' modules often lie there.
    sys.path.append(str(Path.cwd()))
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Carry out a command line; the exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("contrail: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads what we print has enough, as in `contrail query ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        return 128 + signal.SIGPIPE


def _run(arguments: list[str]) -> int:
    from cluster.mistakes import explained
    from cluster.shipped import describe_recipes

    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE + describe_recipes())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {close[0]}?" if close else "see contrail --help"
        print(f"contrail: no command {name!r}: {hint}", file=sys.stderr)
        return 2
    module, _, function = COMMANDS[name].partition(":")
    command: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return explained(command, rest)
