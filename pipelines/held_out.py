"""Comparing a new policy with the one in use, on images of new shards that neither has seen.

The policy in use has seen no image of a shard that it was not fitted on. The new one has, but not
those that the hash of their keys puts into the part "test".
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from pipelines.fit import FitOptions
from policy.bundle import Bundle
from policy.compare import Comparison, Promise, compare
from policy.costs import Costs, read_costs
from policy.evaluate import realised
from policy.exits import with_exits
from policy.fingerprints import difference
from policy.mixture import Routing, answers_used, with_graph
from policy.split import split
from policy.table import Table, read_table
from policy.table_manifest import fingerprints_of, read_manifest

Bundles = tuple[Bundle, Bundle]
"""The new policy and the one in use."""

_Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def held_out_keys(table: Table, new_shards: Collection[str], options: FitOptions) -> set[str]:
    """The keys in the part "test" of shards that the policy in use was not fitted on."""
    test = split(table.keys, options.shares(heads=True), options.seed)["test"]
    new = table.of_shards(new_shards)
    return {table.keys[row] for row in test if new[row]}


def compare_on_new(
    bundles: Bundles, new_shards: Collection[str], options: FitOptions
) -> Comparison | None:
    """Replay both on the held-out images of these shards of the fit's table, at the same costs.

    None where there is no such image.
    """
    table = read_table(options.table)
    costs = None if options.costs is None else read_costs(options.costs)
    keys = held_out_keys(table, new_shards, options)
    sides = [_with_heads(bundle, table, options, costs) for bundle in bundles]
    for side, _ in sides:
        keys &= set(side.keys)  # rows with features that are not finite are gone
    if not keys:
        return None
    found = [_realised(policy, side, keys, options) for side, policy in sides]
    (new_costs, new_regret), (old_costs, old_regret) = found
    promise = Promise(
        options.metric, options.objective, options.max_loss or 0.0, options.confidence or 0.0
    )
    dearest = max(policy.graph.cost(tuple(answers_used(policy))) for _, policy in sides)
    return compare((new_costs, old_costs), (new_regret, old_regret), dearest, promise)


def why_not_comparable(old: Bundle, table: str) -> str | None:
    """Why the policy in use cannot be replayed on a table; None if it can."""
    found = fingerprints_of(read_manifest(table).networks)
    fitted = "the policy in use was fitted for"
    differs = difference(fitted, old.fingerprints, "the table has", found)
    return differs and (
        f"{differs} So they cannot be compared; publish the new one by hand if it is to label with "
        "these networks"
    )


def _with_heads(
    bundle: Bundle, table: Table, options: FitOptions, costs: Costs | None
) -> tuple[Table, Routing]:
    """The table with the exits of a bundle, and its policy at the same costs."""
    if bundle.heads:
        table = with_exits(options.table, table, bundle.heads, table.k, costs)
    elif costs is not None:
        table = table.at_costs(costs)
    policy = bundle.policy
    known = {stage.name: stage.cost for stage in policy.graph.stages}  # exits that are never used
    known |= {stage.name: stage.cost for stage in table.graph.stages}
    graph = policy.graph.with_edges().with_costs(known, table.graph.unit)
    return table, with_graph(policy, graph)


def _realised(policy: Routing, table: Table, keys: set[str], options: FitOptions) -> _Arrays:
    """What each of these images costs and loses, in the order of the table's rows."""
    rows = np.flatnonzero([key in keys for key in table.keys])
    problem = table.problem(options.metric, options.objective, options.seed)
    return realised(policy, problem.take(rows))
