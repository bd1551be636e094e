"""`contrail plan`: what a run would do on machines that are not there yet."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from rich.console import Console

from cluster.experiment import Experiment, ExperimentError, Spaces
from cluster.parsing import parsed
from cluster.plan_advice import Change, Memory, impossible, limits, memory
from cluster.plan_costs import Costs, fitted
from cluster.plan_design import Design, Forecast, drawn_rows, reductions
from cluster.plan_fit import settled
from cluster.plan_model import Simulation
from cluster.plan_options import PlanOptions, flag, parse_options
from cluster.plan_source import parameters, recorded_parameters, refuse_others
from cluster.recipe import find_recipe
from cluster.segments_folder import bytes_wanted
from cluster.sweep_grid import grouped
from learners.extras import needed
from learners.model import ACTING_PARTS

USAGE = """\
usage: contrail plan RECIPE [flags]

Short runs are made and watched on this machine (or --from), and a model of the data path tells what larger ones would
do. Flags that are not below are those of `contrail train RECIPE --help`.
"""
OURS = {"envs": "--envs-per-actor", "topology.actors": "--actors", "topology.learners": "--learners"}
OURS |= {"topology.shards": "--shards", "topology.local": "", "topology.address": ""}
"""Flags of a recipe that a plan has its own for."""


def command_plan(arguments: list[str]) -> int:
    """contrail plan RECIPE [flags]."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, flush=True)
        if arguments:
            parse_options(["--help"])
        return 2
    needed("simpy", "contrail plan is simulated by SimPy", "plan")
    planner = Planner.of(arguments[0], arguments[1:])
    costs = planner.costs()
    if planner.options.save is not None:
        costs.save(planner.options.save)
    from cluster.plan_table import show

    show(Console(), planner, costs, [planner.plan(costs, actors) for actors in planner.options.actors])
    return 0


@dataclass(frozen=True)
class Plan:
    """A run that was planned.

    Attributes:
        design: of it.
        forecast: of what it does.
        memory: that its nodes want.
        impossible: why it cannot be so.
        changes: that would make it faster.
        price: of a billion env steps; None: nobody said what a node costs.
    """

    design: Design
    forecast: Forecast
    memory: Memory
    impossible: list[str]
    changes: list[Change]
    price: float | None


@dataclass(frozen=True)
class Planner:
    """What plans of a recipe have in common.

    Args:
        recipe: its name.
        flags: of the recipe.
        options: of the plan.
        envs: environments of an actor.
        spaces: of the environment.
    """

    recipe: str
    flags: Sequence[str]
    options: PlanOptions
    envs: int
    spaces: Spaces

    @classmethod
    def of(cls, recipe: str, arguments: Sequence[str]) -> "Planner":
        """From a command line.

        Raises:
            ExperimentError: a flag is not the recipe's to take here, or it explores nothing.
        """
        groups, own = (
            grouped(arguments),
            {flag(field.name) for field in fields(PlanOptions)} - {"--source"} | {"--from"},
        )
        mine = [group for group in groups if group[0].replace("_", "-") in own]
        others = [group for group in groups if group not in mine]
        for name, _ in others:
            if (instead := OURS.get(name.removeprefix("--").replace("_", "-"))) is not None:
                what = f"give {instead}" if instead else "it is planned for processes on machines"
                raise ExperimentError(f"{name} is not for a plan: {what}")
        known = inspect.signature(find_recipe(recipe)).parameters
        if missing := sorted({"envs", "topology"} - set(known)):
            raise ExperimentError(f"recipe {recipe} takes no `{missing[0]}`: a plan varies envs and topology")
        options = parse_options([token for name, values in mine for token in (name, *values)])
        flags = [token for name, values in others for token in (name, *values)]
        experiment, _, _ = parsed(recipe, flags)
        if experiment.store:
            raise ExperimentError(f"{recipe} learns from a store: without actors there is nothing to plan")
        envs = options.envs_per_actor or experiment.envs // experiment.topology.actors
        return cls(recipe, flags, options, envs, Spaces.of(experiment.environment))

    def experiment(self, actors: int, envs: int, learners: int, shards: int = 1) -> Experiment:
        """The recipe's, with so many actors, environments of each, learners and shards."""
        sizes = ["--envs", actors * envs, "--topology.actors", actors, "--topology.learners", learners]
        flags = [*self.flags, *map(str, sizes), "--topology.shards", str(shards)]
        return parsed(self.recipe, flags)[0]

    def costs(self) -> Costs:
        """What parts cost, from where the options say.

        Raises:
            ExperimentError: something that is planned cannot be, or costs are of another recipe or other flags.
        """
        designs = [self.design(actors) for actors in self.options.actors]  # all, before the time that measuring takes
        paths, own = self.options.source, parameters(self.recipe, list(self.flags))
        if len(paths) == 1 and paths[0].is_file():
            costs = Costs.load(paths[0])
            refuse_others(paths[0], costs.parameters, own)
            return costs
        if paths:
            from cluster.plan_runs import seen_in

            for path in paths:
                refuse_others(path, recorded_parameters(path), own)
            seen = [seen_in(path) for path in paths]
            costs = fitted(seen)
        else:
            from cluster.calibration import calibrated  # and with it Ray

            options = self.options
            few = {"envs": self.envs, "learners": options.learners}
            costs, seen = calibrated(self.experiment, self.spaces, **few, seconds=options.seconds, say=print)
        here = PlanOptions(seconds=self.options.seconds).checked().cores
        return replace(settled(costs, seen, replace(designs[0], cores=here)), parameters=own)

    def design(self, actors: int) -> Design:
        """The design of a run of so many actors."""
        options = self.options
        experiment = self.experiment(actors, self.envs, options.learners, options.shards)
        with torch.device("meta"):
            model = self.spaces.model(experiment, learning=True)
        state = model.state_dict().items()
        acting = sum(t.numel() * t.element_size() for name, t in state if name.split(".")[0] in ACTING_PARTS)
        row_bytes = self.spaces.schema(experiment).row_bytes
        return Design(
            actors=actors,
            envs=self.envs,
            learners=options.learners,
            shards=options.shards,
            lag=experiment.topology.max_version_lag,
            batch=drawn_rows(experiment),
            reductions=reductions(experiment),
            row_bytes=row_bytes,
            block_bytes=row_bytes * experiment.rows * self.envs,
            weight_bytes=acting,
            gradient_bytes=4 * sum(p.numel() for p in model.parameters() if p.requires_grad),
            cores=options.cores,
            actors_per_node=options.actors_per_node,
            learners_per_node=options.learners_per_node,
            bandwidth=options.gbps * 1e9 / 8,
            latency=options.latency_ms / 1e3,
            learner_speed=options.learner_speed,
        )

    def plan(self, costs: Costs, actors: int) -> Plan:
        """A run of so many actors."""
        design, options = self.design(actors), self.options
        experiment = self.experiment(actors, self.envs, options.learners, options.shards)
        forecast = Simulation(costs, design).forecast()
        taken = memory(costs, design, bytes_wanted(experiment, self.spaces))
        why = list(impossible(design, taken, options.memory_gb * 1e9))
        hours = 1e9 / forecast.speed / 3600
        price = design.nodes * options.price * hours if options.price else None
        return Plan(design, forecast, taken, why, limits(costs, design, forecast), price)
