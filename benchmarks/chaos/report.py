"""What a trial came to, as JSON for machines and Markdown for `docs/results/chaos.md`."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.chaos.checks import Finding
from benchmarks.chaos.everything import Life
from benchmarks.chaos.evidence import Evidence
from benchmarks.chaos.soak import SEVERAL, spread

TITLES = {
    "actor": "an actor killed",
    "learner": "a learner killed",
    "shard": "a shard killed",
    "channel": "the weight channel killed",
    "hang": "a process stopped for 2 to 8 s",
    "pair": "two processes killed, at once or up to 6 s apart",
    "environment": "an environment raises",
    "node": "all of Ray on a machine killed; it joins again after 10 s",
    "link": "a machine cut off for 20 s",
    SEVERAL: "of these, while training stood still for another",
}


def write(folder: Path, name: str, summary: Mapping[str, Any], markdown: str) -> None:
    """Leave both in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown)


def checked(found: Sequence[Finding]) -> str:
    """A table of the checks."""
    rows = [f"| {one.what} | {'yes' if one.holds else '**no**'} | {one.details} |" for one in found]
    return "\n".join(["| check | holds | |", "|---|---|---|", *rows])


def soaked(summary: Mapping[str, Any], found: Sequence[Finding]) -> str:
    """The soak's report."""
    happened = Counter(fault["kind"] for fault in summary["faults"])
    still, goes_on = summary["stood_still"], summary["goes_on"]
    rows = [f"| {title} | {happened[kind] or ''} | {_spread(still.get(kind))} |" for kind, title in TITLES.items()]
    own = [f"| {kind} | {values['count']} | {_spread(values)} |" for kind, values in goes_on.items()]
    head = [
        f"{summary['learner_steps']:,} learner steps, {summary['env_steps']:,} env steps, "
        f"{summary['seconds'] / 60:.1f} minutes, {len(summary['faults'])} faults; an ordinary learner step takes "
        f"{summary['ordinary_step_seconds']:.2f} s.",
        "",
        "| fault | times | training stood still, median and worst |",
        "|---|--:|--:|",
    ]
    table = [
        "| what died, of whichever fault | times | to the next learner step, median and worst |",
        "|---|--:|--:|",
        *own,
    ]
    return "\n".join([*head, *rows, "", *table, "", checked(found), ""])


def compared(evidence: Evidence, other: Evidence, lives: Sequence[Life], found: Sequence[Finding]) -> dict[str, Any]:
    """The trial in which everything is killed, as JSON can hold it."""
    seconds = [life.seconds for life in lives[1:] if not math.isnan(life.seconds)]
    return {
        "run": evidence.run.name,
        "kills": len(lives),
        "early": sum(life.early for life in lives),
        "learner_steps": len(evidence.steps),
        "env_steps": evidence.steps[-1]["step"],
        "made_again": sum(life.made - life.version for life in lives),
        "seconds_to_train_again": spread(seconds) if seconds else None,
        "uninterrupted": {"learner_steps": len(other.steps), "env_steps": other.steps[-1]["step"]},
        "first_resumed_at": lives[0].version if lives else None,
        "findings": [asdict(one) for one in found],
    }


def survived(summary: Mapping[str, Any], found: Sequence[Finding]) -> str:
    """The report of the trial in which everything is killed."""
    other, again = summary["uninterrupted"], summary["seconds_to_train_again"]
    lines = [
        f"Killed {summary['kills']} times, {summary['early']} of them while it started; "
        f"{summary['made_again']:,} learner steps that came after a checkpoint were made anew. From the start of "
        f"`contrail resume` to its first learner step: {_spread(again) or 'not seen'} (median and worst).",
        "",
        "| | this run | left alone |",
        "|---|--:|--:|",
        f"| learner steps | {summary['learner_steps']:,} | {other['learner_steps']:,} |",
        f"| env steps | {summary['env_steps']:,} | {other['env_steps']:,} |",
        "",
        f"It was resumed first at learner step {summary['first_resumed_at']}.",
    ]
    return "\n".join([*lines, "", checked(found), ""])


def _spread(values: Mapping[str, float] | None) -> str:
    return f"{values['median']:.1f} s, {values['worst']:.1f} s" if values else ""
