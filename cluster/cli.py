"""The command line: contrail train | resume | evaluate.

Exit codes: 0 done (or stopped in order), 2 a mistake of the user's, 1 anything else. A mistake is one sentence; a
traceback appears only for what nobody foresaw, and is kept in the run's logs.
"""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

USAGE = """\
contrail: actors explore, a sharded store streams, learners learn.

  contrail train RECIPE [flags]      train; RECIPE is one of those below, or my_file.py:function
  contrail train RECIPE --help       a recipe's flags
  contrail resume RUN                continue a run that was stopped or died
  contrail evaluate RUN [flags]      play a run's newest checkpoint
  contrail --help                    this

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `contrail` command."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Carry out a command line; the exit code."""
    from cluster.commands import COMMANDS, describe_recipes, explained

    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE + describe_recipes())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, 1)
        print(f"contrail: no command {name!r}{f', did you mean {close[0]}?' if close else ''}; see contrail --help")
        return 2
    command: Callable[[list[str]], int] = COMMANDS[name]
    return explained(command, rest)
