"""adalabel fit: learn from a table when to stop, choose a policy by loss or by budget, report."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Literal

from pipelines.fit_report import write_report
from pipelines.options import CommandOptions
from policy.bundle import Bundle, Evidence, FittedOn, write_bundle
from policy.certify import Certificate
from policy.costs import read_costs
from policy.errors import InputError
from policy.evaluate import Evaluation, evaluate
from policy.exits import with_exits
from policy.fit import Fit, Goal, fit
from policy.heads import Head
from policy.losses import Metric, Objective
from policy.methods import METHODS, Name
from policy.mixture import answers_used
from policy.offers import offers, stage_shares
from policy.problem import Problem
from policy.reference import reference
from policy.split import split
from policy.table import Table, read_table
from transforms.fit_heads import fit_exits

_LOG = logging.getLogger("adalabel")

_PLACES = ("json", "table", "policy", "costs")  # where things lie decides nothing


@dataclass(frozen=True, kw_only=True)
class FitOptions(CommandOptions):
    """Fit policies on one part of a table, choose one on another, and say what it costs."""

    table: str
    """The table's folder, made by `adalabel extract` or `adalabel import`."""
    policy: str
    """Folder to write the policy to, with report.html."""
    method: Name | Literal["best"] = "averaged"
    """averaged: early exit and network selection, labels averaged over the answers got. dag: the
    same with the last answer as the label (Bolukbasi et al. 2017). eenet: EENet's scheduler (Ilhan
    et al. 2024). gain, per-class: further learned ones. The rest are baselines; best: the best of
    all. See docs/methods.md."""
    metric: Metric = "top1"
    """What counts as right: the best class, or one of the five best."""
    objective: Objective = "excess"
    """excess: share of images that the full network gets right and the policy wrong.
    loss: accuracy of the full network less that of the policy."""
    max_loss: float | None = None
    """Cheapest policy that loses at most this fraction (0.01 is one point). Or give --budget."""
    budget: float | None = None
    """Best policy whose mean cost per image is this, in the table's unit."""
    confidence: float | None = None
    """Prove --max-loss at this confidence (0.95) on images used for nothing else."""
    costs: str | None = None
    """Costs to fit for (JSON, from `adalabel calibrate`); without it, those of the table."""
    no_exits: bool = False
    """Leave out the early exits: without it, heads are fitted for all that the table has features
    of."""
    choose_share: float = 0.2
    """Fraction of the images that choose among the fitted policies."""
    certify_share: float = 0.2
    """Fraction of the images kept for the certificate, where --confidence is given."""
    test_share: float = 0.2
    """Fraction of the images kept for the report's figures; the remaining images fit (a third of
    them the exits' heads)."""
    seed: int = 0
    """Decides which images are in which part, by a hash of their key."""

    def __post_init__(self) -> None:
        """Refuse what cannot be promised."""
        self.goal  # noqa: B018 - refuses what cannot be asked for
        shares = {name: s for name, s in self.shares(heads=False).items() if name != "fit"}
        if min(shares.values()) < 0 or self.choose_share == 0 or sum(shares.values()) >= 1:
            raise InputError(
                f"the shares are {shares}; wanted fractions whose sum is below 1, that to choose "
                "with above 0: the rest fits"
            )
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: wanted at least 0")

    @property
    def goal(self) -> Goal:
        """What was asked for."""
        return Goal(self.max_loss, self.budget, self.confidence)

    @property
    def promise(self) -> str:
        """What was asked for, in words."""
        if self.max_loss is not None:
            return f"{self.metric} {self.objective} at most {self.max_loss:g}"
        return f"cost of {self.budget:g}"

    def shares(self, *, heads: bool) -> dict[str, float]:
        """The parts of a table, with one for exits' heads or without."""
        shares = {"choose": self.choose_share, "test": self.test_share}
        if self.confidence is not None:
            shares["certify"] = self.certify_share
        rest = 1 - sum(shares.values())
        return ({"heads": rest / 3, "fit": rest * 2 / 3} if heads else {"fit": rest}) | shares


@dataclass(frozen=True)
class FitReceipt:
    """The policy, how many were to choose from, and what it did on images it was not fitted on.

    `parts` counts the images of each part; `measured` was seen on the part `measured_on`.
    `data_digest` is that of the table as it was read.
    """

    policy: str
    method: str
    proposed: int
    parts: dict[str, int]
    rejected: dict[str, int]
    data_digest: str
    promise: str
    certificate: Certificate | None
    measured_on: str
    measured: Evaluation

    def text(self) -> str:
        """For people."""
        e = self.measured
        used = ", ".join(f"{name} {use.exits:.0%}" for name, use in e.usage.items() if use.exits)
        top5 = "" if e.top5 is None else f", top-5 {e.top5:.2%} (loses {e.top5_loss:.2%})"
        seen = (
            "that nothing was fitted or chosen on"
            if self.measured_on == "test"
            else ("it was chosen on, so expect slightly worse")
        )
        proof = "not certified: give --confidence for a proof"
        return (
            f"{self.policy}: chose one of {self.proposed} policies fitted on {self.parts['fit']} "
            f"images by {self.method} ({self.promise})\n"
            f"  on {e.n} images {seen}: {e.cost:.4g} {e.unit} per image ({e.full} alone "
            f"{e.full_cost:.4g}); top-1 {e.top1:.2%} (loses {e.top1_loss:.2%}){top5}\n"
            f"  labelled by: {used}\n"
            f"  {self.certificate.text if self.certificate else proof}\n"
            f"  report: {self.policy}/report.html"
        )


def run(options: FitOptions) -> FitReceipt:
    """Read, fit heads, split, fit policies, choose, certify, write policy and report."""
    read = read_table(options.table)
    table, heads = _with_exits(options, read)
    whole = table.problem(options.metric, options.objective, options.seed)
    parts = whole.split(options.shares(heads=bool(heads)))
    methods: tuple[Name, ...] = tuple(METHODS) if options.method == "best" else (options.method,)
    fitted = fit(parts, methods, options.goal)
    measured_on = "test" if len(parts["test"]) else "choose"
    measured = evaluate(fitted.policy, parts[measured_on])
    receipt = FitReceipt(
        policy=options.policy,
        method=fitted.method,
        proposed=sum(len(points) for points in fitted.proposed.values()),
        parts={name: len(part) for name, part in parts.items()},
        rejected=table.rejected,
        data_digest=read.digest,
        promise=options.promise,
        certificate=fitted.certificate,
        measured_on=measured_on,
        measured=measured,
    )
    bundle = _bundle(options, table, heads, fitted, receipt, parts[measured_on])
    write_report(options.policy, bundle, fitted, parts)
    write_bundle(options.policy, bundle)
    return receipt


def settings_of(options: FitOptions) -> str:
    """A digest of all that decides a policy beside the table: options, and the costs' content."""
    own = {field.name: getattr(options, field.name) for field in fields(FitOptions)}
    known = {name: own[name] for name in sorted(own) if name not in _PLACES}
    costs = None if options.costs is None else asdict(read_costs(options.costs))
    return short_digest(json.dumps([known, costs], sort_keys=True))


def short_digest(text: str) -> str:
    """The first 16 digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_exits(options: FitOptions, table: Table) -> tuple[Table, dict[str, Head]]:
    """The table at the asked costs, with the answers of exits whose heads are fitted first."""
    costs = None if options.costs is None else read_costs(options.costs)
    has_features = any(network.features for network in table.networks.values())
    if options.no_exits or not has_features:
        return (table if costs is None else table.at_costs(costs)), {}
    rows = split(table.keys, options.shares(heads=True), options.seed)["heads"]
    _LOG.info("fitting the exits' heads on %d images", len(rows))
    heads = fit_exits(options.table, table, rows, options.seed)
    return with_exits(options.table, table, heads, table.k, costs), heads


def _bundle(
    options: FitOptions,
    table: Table,
    heads: Mapping[str, Head],
    fitted: Fit,
    receipt: FitReceipt,
    held_out: Problem,
) -> Bundle:
    used = answers_used(fitted.policy)
    measured = receipt.measured
    evidence = Evidence(
        method=fitted.method,
        metric=options.metric,
        objective=options.objective,
        promise=options.promise,
        certificate=fitted.certificate,
        data_digest=receipt.data_digest,
        seed=options.seed,
        parts=receipt.parts,
        measured_on=receipt.measured_on,
        full=measured.full,
        exits={answer: use.exits for answer, use in measured.usage.items() if use.exits},
        cost=measured.cost,
        full_cost=measured.full_cost,
        regret=getattr(measured, f"{options.metric}_{options.objective}"),
        versions={name: version(name) for name in ("adalabel", "numpy", "scikit-learn", "scipy")},
        reference=reference(fitted.policy, held_out),
        stages=stage_shares(fitted.policy, held_out),
        offers=offers(fitted.proposed.values(), held_out),
        calibration=None if options.costs is None else read_costs(options.costs).calibration,
        fitted_on=FittedOn(
            shards={name: short_digest(shard.made_from) for name, shard in table.shards.items()},
            settings=settings_of(options),
        ),
    )
    return Bundle(
        policy=fitted.policy,
        class_names=table.class_names,
        fingerprints={
            name: network.fingerprint
            for name, network in table.networks.items()
            if (used | {table.graph.full}) & set(network.answers)  # the audit runs it
        },
        evidence=evidence,
        heads={name: head for name, head in heads.items() if name in used},
    )
