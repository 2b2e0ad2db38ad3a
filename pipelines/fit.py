"""adalabel fit: learn from a table when to stop, and choose a policy by loss or by budget."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from pipelines.options import CommandOptions
from policy import fit_dag
from policy.bundle import Bundle, Evidence, write_bundle
from policy.choose import within_budget, within_loss
from policy.costs import read_costs
from policy.errors import InputError
from policy.evaluate import Evaluation, Point, evaluate, measure
from policy.losses import Metric, Objective
from policy.rules import Policy, always
from policy.split import split
from policy.table import Table, read_table

_LOG = logging.getLogger("adalabel")

METHODS = {"dag": fit_dag.propose}
LEAST_IMAGES = 40


@dataclass(frozen=True, kw_only=True)
class FitOptions(CommandOptions):
    """Fit a policy on one part of a table and choose it on another."""

    table: str
    """The table's folder, made by `adalabel extract` or `adalabel import`."""
    policy: str
    """Folder to write the policy to."""
    method: Literal["dag"] = "dag"
    """dag: early exit and network selection by recursion over the graph (Bolukbasi et al. 2017)."""
    metric: Metric = "top1"
    """What counts as right: the best class, or one of the five best."""
    objective: Objective = "excess"
    """excess: share of images that the full network gets right and the policy wrong.
    loss: accuracy of the full network less that of the policy."""
    max_loss: float | None = None
    """Cheapest policy that loses at most this fraction (0.01 is one point). Or give --budget."""
    budget: float | None = None
    """Best policy whose mean cost per image is at most this, in the table's unit."""
    costs: str | None = None
    """Costs to fit for (JSON, from `adalabel calibrate`); without it, those of the table."""
    fit_share: float = 0.5
    """Fraction of the images to fit on; the others choose."""
    seed: int = 0
    """Decides which images are in which part, by a hash of their key."""

    def __post_init__(self) -> None:
        """Refuse what cannot be promised."""
        if (self.max_loss is None) == (self.budget is None):
            found = "neither" if self.max_loss is None else "both"
            raise InputError(f"give one of --max-loss and --budget; found {found}")
        if self.max_loss is not None and not 0 <= self.max_loss <= 1:
            raise InputError(f"--max-loss {self.max_loss}: wanted a fraction from 0 to 1")
        if not 0 < self.fit_share < 1:
            raise InputError(f"--fit-share {self.fit_share}: wanted a fraction between 0 and 1")

    @property
    def promise(self) -> str:
        """What was asked for, in words."""
        if self.max_loss is not None:
            return f"{self.metric} {self.objective} at most {self.max_loss:g}"
        return f"cost at most {self.budget:g}"


@dataclass(frozen=True)
class FitReceipt:
    """The policy, how many were to choose from, and what it did on the part it was chosen on."""

    policy: str
    proposed: int
    fitted: int
    rejected: dict[str, int]
    promise: str
    chosen: Evaluation

    def text(self) -> str:
        """For people."""
        e = self.chosen
        used = ", ".join(f"{name} {use.exits:.0%}" for name, use in e.usage.items())
        top5 = "" if e.top5 is None else f", top-5 {e.top5:.2%} (loses {e.top5_loss:.2%})"
        return (
            f"{self.policy}: chose one of {self.proposed} policies fitted on {self.fitted} images "
            f"({self.promise})\n"
            f"  on {e.n} other images: {e.cost:.4g} {e.unit} per image ({e.full} alone "
            f"{e.full_cost:.4g}); top-1 {e.top1:.2%} (loses {e.top1_loss:.2%}){top5}\n"
            f"  labelled by: {used}\n"
            "  Chosen on these images, so expect slightly worse; not certified."
        )


def run(options: FitOptions) -> FitReceipt:
    """Read, split, propose, choose, write."""
    table = read_table(options.table)
    if options.costs is not None:
        table = table.at_costs(read_costs(options.costs))
    shares = {"fit": options.fit_share, "choose": 1 - options.fit_share}
    parts = {
        name: table.take(rows) for name, rows in split(table.keys, shares, options.seed).items()
    }
    for name, part in parts.items():
        if len(part.keys) < LEAST_IMAGES:
            raise InputError(
                f"only {len(part.keys)} labelled images to {name} with; wanted at least "
                f"{LEAST_IMAGES}. Extract more, or change --fit-share."
            )
    proposed = _propose(options, parts["fit"])
    point = _choose(options, proposed, parts["choose"])
    receipt = FitReceipt(
        options.policy,
        len(proposed),
        len(parts["fit"].keys),
        table.rejected,
        options.promise,
        evaluate(point.policy, parts["choose"]),
    )
    write_bundle(options.policy, _bundle(options, table, parts, point, receipt.chosen))
    return receipt


def _propose(options: FitOptions, part: Table) -> list[Policy]:
    """The distinct policies that the method proposes, in its order.

    None is dropped for doing worse on the part it was fitted on: safer ones, which look wasteful
    there, are what keeps a strict promise on other images.
    """
    policies = METHODS[options.method](
        part.outputs, part.labels, part.graph, options.metric, options.objective
    )
    return list(dict.fromkeys(policies))


def _choose(options: FitOptions, policies: Sequence[Policy], part: Table) -> Point:
    """The policy that keeps the promise on the other part; every single network may be chosen."""
    singles = [always(part.graph, answer) for answer in part.graph.answers]
    points = measure(
        [*policies, *singles], part.outputs, part.labels, options.metric, options.objective
    )
    if options.budget is not None:
        return within_budget(points, options.budget)
    return within_loss(points, options.max_loss or 0.0)


def _bundle(
    options: FitOptions, table: Table, parts: dict[str, Table], point: Point, chosen: Evaluation
) -> Bundle:
    used = set(point.policy.reachable(point.policy.start))
    evidence = Evidence(
        method=options.method,
        metric=options.metric,
        objective=options.objective,
        promise=options.promise,
        data_digest=table.digest,
        seed=options.seed,
        fitted=len(parts["fit"].keys),
        chosen=len(parts["choose"].keys),
        full=table.graph.full,
        exits={answer: use.exits for answer, use in chosen.usage.items()},
        cost=point.cost,
        full_cost=table.graph.cost((table.graph.full,)),
        regret=point.regret,
        versions={name: version(name) for name in ("adalabel", "numpy", "scikit-learn")},
    )
    return Bundle(
        policy=point.policy,
        class_names=table.class_names,
        fingerprints={
            name: network.fingerprint
            for name, network in table.networks.items()
            if used & set(network.answers)
        },
        evidence=evidence,
    )
