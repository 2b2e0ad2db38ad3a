"""Early exits from fitted heads: the table with their answers, as if it had been extracted so."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from policy.answers import Answers, concatenate
from policy.costs import Costs
from policy.errors import InputError
from policy.graph import Stage, StageGraph
from policy.heads import Head
from policy.rows import NONFINITE
from policy.table import Table, exit_of
from policy.table_features import feature_batches

_GMAC = "gmac"


def with_exits(
    folder: str,
    table: Table,
    heads: Mapping[str, Head],
    k: int | None,
    costs: Costs | None = None,
) -> Table:
    """The table with the answers of these heads, by exit, from the features stored in `folder`.

    The answers hold the `k` best classes (None: all): give what `read_table` was given. The exits
    become stages of the graph and answers of their networks; `_edges` says what may follow what.
    They are priced by multiply-accumulates, as the router's engine does; with `costs`, the whole
    graph is priced by those before the edges are laid. Rows with features that are not finite are
    left out and counted as rejected, as the router rejects them.

    Raises InputError on a head for an exit that the table has no features for, a head of other
    classes, costs that lack an exit, and a table already priced otherwise if no costs are given.
    """
    if costs is not None:
        table = table.at_costs(costs)
    elif heads and table.graph.unit != _GMAC:
        raise InputError(
            f"the table is priced in {table.graph.unit}, so its exits need a price in it too: give "
            "costs from `adalabel calibrate`, or add the exits before pricing the table"
        )
    trunks = _trunks(table, heads)
    found = {name: _answers(folder, table, trunks[name], head, k) for name, head in heads.items()}
    stages = [
        Stage(name, head.weight.size / 1e9, (trunks[name],), answers=True)
        for name, head in heads.items()
    ]
    with_stages = _with_stages(table, stages, costs)
    return _with_answers(with_stages, found)


def _trunks(table: Table, heads: Mapping[str, Head]) -> dict[str, str]:
    """The stage each exit answers from; refuses heads that do not fit the table."""
    known = {
        exit_of(stage): stage for network in table.networks.values() for stage in network.features
    }
    for name, head in heads.items():
        if name not in known:
            raise InputError(
                f"a head was fitted for exit {name!r}, which the table has no features for; it has "
                f"them for {', '.join(known) or 'none'}. Extract with this exit in the networks "
                "file."
            )
        if len(head.bias) != len(table.class_names):
            raise InputError(
                f"the head of {name!r} tells {len(head.bias)} classes apart, the table has "
                f"{len(table.class_names)}; fit it on this table"
            )
    return {name: known[name] for name in heads}


def _answers(
    folder: str, table: Table, trunk: str, head: Head, k: int | None
) -> tuple[NDArray[np.intp], Answers]:
    """The rows whose features are finite, ascending, and what the head says of them."""
    rows, parts = [], []
    for some, features in feature_batches(folder, table, trunk, np.arange(len(table.keys))):
        rows.append(some)
        parts.append(head.answers(features, k))
    found = np.concatenate(rows)
    order = np.argsort(found)
    return found[order], concatenate(parts).take(order)


def _with_answers(table: Table, found: Mapping[str, tuple[NDArray[np.intp], Answers]]) -> Table:
    """The table with these answers beside its own, on the rows that all of them have."""
    kept = np.arange(len(table.keys))
    for rows, _ in found.values():
        kept = np.intersect1d(kept, rows, assume_unique=True)
    lost = len(table.keys) - len(kept)
    if lost:
        rejected = {**table.rejected, NONFINITE: table.rejected.get(NONFINITE, 0) + lost}
        table = replace(table.take(kept), rejected=rejected)
    outputs = table.outputs | {
        name: answers.take(np.searchsorted(rows, kept)) for name, (rows, answers) in found.items()
    }
    return replace(table, outputs={name: outputs[name] for name in table.graph.answers})


def _with_stages(table: Table, exits: Sequence[Stage], costs: Costs | None) -> Table:
    """The table whose graph and networks have these exits.

    A network's exits come after its own answer in the graph, so that of two answers that cost the
    same, the network's own comes first: it is the full network, not an exit at its very end.
    """
    networks, exits_of = {}, {}
    for name, network in table.networks.items():
        own = [stage for stage in exits if stage.needs[0] in network.features]
        own.sort(key=lambda stage: table.graph.cost(stage.needs))
        networks[name] = replace(
            network, answers=(*(stage.name for stage in own), *network.answers)
        )
        exits_of[max(network.answers, key=lambda answer: table.graph.cost((answer,)))] = own
    stages: list[Stage] = []
    for stage in table.graph.stages:
        stages += [stage, *exits_of.get(stage.name, ())]
    names = {end: tuple(stage.name for stage in own) for end, own in exits_of.items()}
    graph = StageGraph(tuple(stages), table.graph.unit, _edges(table.graph, names))
    if costs is None:
        return replace(table, graph=graph, networks=networks)
    return replace(table, graph=graph, networks=networks).at_costs(costs)


def _edges(
    graph: StageGraph, exits_of: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, str], ...]:
    """Which answer may follow which, given the exits of each network by its own answer.

    `graph` is without the exits; its edges stay, and say which network may follow which. Inside a
    network, an exit is followed by any later exit and by the network's own answer. Where network B
    may follow network A, every answer of A may be followed by B's first exit and by B's own answer.
    So no trail comes back to a network that it has left, and a pair of networks adds an edge or two
    for each answer of the first, not one for each pair of exits.
    """
    edges = list(graph.with_edges().edges or ())
    for end, exits in exits_of.items():
        edges += combinations((*exits, end), 2)
        after = graph.followers(end)
        first = [exits_of[later][0] for later in after if exits_of.get(later)]
        edges += [(answer, later) for answer in exits for later in after]
        edges += [(answer, later) for answer in (*exits, end) for later in first]
    return tuple(dict.fromkeys(edges))
