"""What limits a run: the busiest kind of process, where its time goes, and the knob that follows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from actors.actor import STAGES as ACTOR
from cluster.experiment import Experiment
from learners.learner import STAGES as LEARNER

Limit = Literal["environment", "inference", "learner", "all-reduce", "replay", "weights", "turns", "driver"]
Kind = Literal["actors", "straggler", "learners", "shards", "weights", "driver", "process"]

DOMINATES = 2 / 3
"""Share of its time from which a kind limits a run at lag 0 by itself. Below it, letting the kinds overlap can gain
more than twice as many of its processes: a factor of 1 / share, against 1 / (1 - share / 2)."""
ALIKE = 0.1
"""Kinds whose shares differ by less are told apart by the queue between them."""
BEHIND = 1.5
"""An actor that works so many times as long as the mean one keeps the others waiting."""
FULL = 0.9
"""Share of a machine's cores from which on another process finds none that is idle."""

SUBJECTS: dict[Limit, str] = {
    "environment": "the environments limit it",
    "inference": "the policy's inference limits it",
    "learner": "the learners limit it",
    "all-reduce": "the all-reduce limits it",
    "replay": "the replay store limits it",
    "weights": "the way of the weights limits it",
    "turns": "actors and learners take turns and wait for each other",
    "driver": "the driver limits it",
}
WHOSE: dict[Kind, str] = {
    "actors": "the actors'",
    "straggler": "the slowest actor's",
    "learners": "the learners'",
    "shards": "the busiest shard's",
    "weights": "the actors'",
    "driver": "the",
    "process": "the process's",
}


class NotMeasured(ValueError):
    """Values that do not tell where time goes."""


@dataclass(frozen=True)
class Verdict:
    """What limits a run.

    Attributes:
        limit: what.
        share: of wall time that goes there; of "turns": that the busiest kind waits.
        knob: what to do about it.
        whose: wall time.
    """

    limit: Limit
    share: float
    knob: str
    whose: Kind = "process"

    def __str__(self) -> str:
        return f"{SUBJECTS[self.limit]} ({self.share:.0%} of {WHOSE[self.whose]} time): {self.knob}"


@dataclass(frozen=True)
class _Part:
    """A part of a kind's time: what it is, its share, how more processes would help, and what else would."""

    limit: Limit
    share: float
    more: str
    otherwise: str = ""


Kinds = dict[Kind, list[_Part]]


def verdict(values: Mapping[str, float], experiment: Experiment) -> Verdict:
    """What limits a run, from where its time went.

    Each kind of process is as busy as the parts of its time say in which it does not wait; the busiest one is the
    limit, and the largest part of its time names it. Where two are about as busy, the queue between them tells who is
    ahead. One actor that is slower than the others may be busy where the mean one waits for it. At lag 0, where actors
    and learners take turns, none may be busy for long: then the turns are the limit, unless another process would find
    all cores busy anyway.

    Args:
        values: by tag, of one line of `metrics.jsonl`, or means over several.
        experiment: checked.

    Raises:
        NotMeasured: the values lack the learners' or actors' stages.
    """
    kinds = _of_one_process(values, experiment) if experiment.topology.local else _of_processes(values, experiment)
    works = {kind: sum(part.share for part in parts) for kind, parts in kinds.items()}
    in_step = experiment.topology.max_version_lag == 0
    kind = _busiest(works, None if in_step else values.get("bottleneck/queue"))
    full = values.get("bottleneck/cores_busy", 0.0) >= FULL
    slowest = values.get("bottleneck/slowest_actor_busy", 0.0)
    if slowest > max(works[kind], DOMINATES, BEHIND * works.get("actors", 1.0)):
        part = max(kinds["actors"], key=lambda part: part.share)
        return Verdict(part.limit, slowest, "the others wait for it: see contrail status", "straggler")
    takes_turns = in_step and not (experiment.topology.local or experiment.store)
    if takes_turns and works[kind] < DOMINATES and not full:
        return Verdict("turns", max(0.0, 1 - works[kind]), "--topology.max-version-lag 1 lets them overlap", kind)
    part = max(kinds[kind], key=lambda part: part.share)
    more = "more cores or machines, for those of this one are all busy" if full and part.otherwise else part.more
    return Verdict(part.limit, part.share, ", or ".join(filter(None, (more, part.otherwise))), kind)


def busy(values: Mapping[str, float], experiment: Experiment) -> dict[str, float]:
    """Tags of how busy actors and learners are, as shares of their wall time; empty where that is not measured."""
    try:
        learner = _seconds(values, "learner", LEARNER)
        actor = {} if experiment.store else _seconds(values, "actor", ACTOR)
    except NotMeasured:
        return {}
    cycle = sum(learner.values())
    found = {"bottleneck/learners_busy": (cycle - learner["wait"] - learner["between"]) / cycle}
    if actor:
        whole = sum(actor.values())
        works = whole - actor["wait"] - actor["between"]
        if experiment.topology.local:  # they play one after another, in the learner's time; where rows go is there, too
            found["bottleneck/actors_busy"] = min(1.0, experiment.topology.actors * works / cycle)
        else:
            found["bottleneck/actors_busy"] = (works - actor["room"]) / whole
    return found


def _busiest(works: Mapping[Kind, float], queue: float | None) -> Kind:
    """The kind that works most; of actors and learners who work about as much, the one on whom the other waits."""
    kind = max(works, key=lambda kind: works[kind])
    both = kind in ("actors", "learners") and {"actors", "learners"} <= works.keys()
    if not both or queue is None or abs(works["actors"] - works["learners"]) > ALIKE:
        return kind
    return "learners" if queue >= 0.5 else "actors"


def _of_processes(values: Mapping[str, float], experiment: Experiment) -> Kinds:
    """Shares of wall time in which each kind does not wait."""
    learner = _shares(_seconds(values, "learner", LEARNER))
    kinds: Kinds = {"learners": _learning(learner, experiment)}
    # Who waits afterwards for something else would have waited for that anyway.
    idle = max(0.0, learner["between"] - learner["wait"])
    shards = values.get("bottleneck/shards_busy", 0.0)
    if experiment.store:
        shards = max(shards, learner["wait"])
    else:
        actor = _shares(_seconds(values, "actor", ACTOR))
        kinds["actors"] = _acting(actor, experiment)
        idle = max(idle, actor["between"] - actor["wait"] - actor["room"])
        way = values.get("bottleneck/weights_wait", 0.0)
        kinds["weights"] = [_Part("weights", way, "a faster network", "longer blocks (--rows), or a smaller network")]
    kinds["shards"] = [_Part("replay", shards, "more shards (--topology.shards)", "longer blocks (--rows)")]
    idle = max(0.0, idle - shards)  # between two steps the driver asks the shards, too
    kinds["driver"] = [_Part("driver", idle, "longer blocks (--rows) or more environments (--envs)")]
    return kinds


def _of_one_process(values: Mapping[str, float], experiment: Experiment) -> Kinds:
    """Shares of the one process's wall time: what is between two learner steps is the actors' and the driver's."""
    learner = _seconds(values, "learner", LEARNER)
    cycle, actors = max(1e-9, sum(learner.values())), experiment.topology.actors
    found = dict.fromkeys(ACTOR, 0.0) if experiment.store else _seconds(values, "actor", ACTOR)
    actor = {stage: actors * seconds / cycle for stage, seconds in found.items() if stage != "between"}
    spent = {stage: seconds / cycle for stage, seconds in learner.items()}
    alone = "processes of their own for actors and learners (without --topology.local)"
    parts = [*_acting(actor, experiment), *_learning(spent, experiment)]
    parts += [
        _Part("replay", actor.get("room", 0.0) + spent["wait"], "", "longer blocks (--rows)"),
        _Part("weights", actor.get("wait", 0.0), "", "longer blocks (--rows)"),
        _Part("driver", max(0.0, spent["between"] - sum(actor.values())), "", "longer blocks (--rows)"),
    ]
    return {"process": [_Part(part.limit, part.share, alone, part.otherwise or part.more) for part in parts]}


def _acting(actor: Mapping[str, float], experiment: Experiment) -> list[_Part]:
    more = "more actors (--topology.actors)"
    if experiment.topology.actors >= experiment.envs:
        more = "more environments with an actor each (--envs and --topology.actors)"
    return [
        _Part("environment", actor.get("environment", 0.0), more, "a cheaper environment"),
        _Part(
            "inference", actor.get("inference", 0.0), more, "more environments in each (--envs), or a smaller network"
        ),
        _Part("replay", actor.get("write", 0.0), more, "smaller observations"),
    ]


def _learning(learner: Mapping[str, float], experiment: Experiment) -> list[_Part]:
    more, gpus = "more learners (--topology.learners)", experiment.topology.gpus_per_learner
    ahead = "" if experiment.topology.max_version_lag else "reading ahead (--topology.max-version-lag 1)"
    return [
        _Part(
            "learner",
            learner["copy"] + learner["update"],
            f"{more}, each with a GPU of its own" if gpus else more,
            ("" if gpus else "a GPU for each, ") + "a smaller network or fewer --epochs",
        ),
        _Part("all-reduce", learner["reduce"], "fewer learners (--topology.learners) or larger minibatches"),
        _Part("replay", learner["gather"], more, ahead or "smaller windows"),
        _Part("weights", learner["publish"], "longer blocks (--rows), or a smaller network"),
    ]


def _seconds(values: Mapping[str, float], who: str, stages: Iterable[str]) -> dict[str, float]:
    """Seconds by stage; those of which nothing is known took none.

    Raises:
        NotMeasured: nothing is known of any.
    """
    tags = {stage: f"time/{who}_{stage}" for stage in stages}
    if not any(values.get(tag) for tag in tags.values()):
        raise NotMeasured(f"nothing tells where {who}s spend their time: wanted {', '.join(tags.values())}")
    return {stage: values.get(tag, 0.0) for stage, tag in tags.items()}


def _shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Of the sum."""
    whole = sum(seconds.values())
    return {stage: value / whole for stage, value in seconds.items()}
