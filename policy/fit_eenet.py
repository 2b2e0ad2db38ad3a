"""--method eenet: early exit along chains of answers for a budget, by EENet (Ilhan et al. 2024).

Section 3.2 of the paper: score functions say how likely each exit is right, assignment functions
which exit each sample is meant for; fitted in turns. The mean assignment gives the share of samples
for each exit, and these the thresholds (Algorithm 1), moved so that the budget is met.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from policy.chains import Chain
from policy.eenet_assignment import (
    Assignment,
    aim,
    assigned,
    assignment_inputs,
    fit_assignment,
    start_assignment,
)
from policy.eenet_chains import promising
from policy.eenet_inputs import Exits, Matrix, check_chain, exits_of
from policy.eenet_rules import exit_policy
from policy.eenet_scores import Scores, fit_scores, raw_scores
from policy.eenet_thresholds import exit_of_each, thresholds_for_budget
from policy.errors import InputError
from policy.problem import Problem
from policy.rules import Policy, always

BUDGETS = 24
"""Of the sweep, evenly spaced in the logarithm between the cheapest answer's cost and the full
network's."""

_WIDEST = 1e-3  # lowest budget over highest, should the cheapest answer be free
_TURNS = 4  # from nothing; one more for each further budget of a sweep
_STEPS = 100  # of the assignment in each turn


@dataclass(frozen=True)
class Restart:
    """Settings of one restart.

    beta: how far the wanted assignment follows the scores, from sharply (0.1) to hardly (2).
    cost_weight: of the budget's part of L_h; the released code weighs the two parts 1e-3 and 1e-2.
    With 0 the budget is met by moving the shares alone (see thresholds_for_budget), which spends
    less on the last exits: better at tight budgets, where 10 is better at wide ones.
    """

    beta: float
    cost_weight: float


RESTARTS = (Restart(0.1, 10.0), Restart(0.5, 10.0), Restart(2.0, 0.0))
"""For each budget the one is kept that loses least on the fit part."""


@dataclass(frozen=True)
class Scheduler:
    """Fitted functions, and the share of samples [K] that the assignment means for each exit."""

    scores: Scores
    assignment: Assignment
    shares: Matrix


@dataclass(frozen=True)
class _Candidate:
    """Scores with thresholds [K], and what their labels lose on the fit part, on average."""

    exits: Exits
    scores: Scores
    thresholds: Matrix
    lost: float


def propose(problem: Problem) -> list[Policy]:
    """The full network, a sweep of budgets from dear to cheap, and the cheapest answer for all."""
    graph = problem.graph
    cheapest = min(graph.answers, key=lambda answer: graph.cost((answer,)))
    top = graph.cost((graph.full,))
    lowest = max(graph.cost((cheapest,)), _WIDEST * top)
    swept: list[Policy] = []
    if lowest < top:
        budgets = np.geomspace(top, lowest, BUDGETS + 2)[1:-1]
        swept = _best(problem, promising(problem), budgets.tolist())
    return list(dict.fromkeys([always(graph, graph.full), *swept, always(graph, cheapest)]))


def propose_for(problem: Problem, budget: float, chain: Sequence[str] | None = None) -> Policy:
    """The policy whose mean cost on the problem's images is `budget`, as near as ties allow.

    `chain` is the order of the answers; None for the best of the promising ones. What the last
    answer (the full network) does not cost by itself is not spent. Raises InputError if the budget
    does not pay for the first answer, or there is no such chain.
    """
    graph = problem.graph
    if chain is not None:
        check_chain(graph, chain)
    answers = graph.answers if chain is None else chain
    affordable = [answer for answer in answers if graph.cost((answer,)) <= budget]
    first = min(answers, key=lambda answer: graph.cost((answer,))) if chain is None else chain[0]
    if first not in affordable:
        raise InputError(
            f"a budget of {budget} {graph.unit} an image; the first answer, {first!r}, costs "
            f"{graph.cost((first,))}. Ask for at least that."
        )
    if len(affordable) < len(answers):
        tried = promising(problem) if chain is None else [tuple(chain)]
        if found := _best(problem, tried, [budget]):
            return found[0]
    return always(graph, max(affordable, key=lambda answer: graph.cost((answer,))))


def _best(problem: Problem, tried: Iterable[Chain], budgets: Sequence[float]) -> list[Policy]:
    """For each budget, dear to cheap, the policy of the chain and the restart that lose least.

    None for a budget that lies strictly between the first and the last cost of no chain.
    """
    found: dict[float, list[_Candidate]] = {budget: [] for budget in budgets}
    for chain in tried:
        exits = exits_of(problem, chain)
        between = [budget for budget in budgets if exits.costs[0] < budget < exits.costs[-1]]
        lost = np.stack([problem.lost[name] for name in chain], axis=1)
        streams = np.random.default_rng(problem.seed).spawn(len(RESTARTS))
        for restart, rng in zip(RESTARTS, streams, strict=True):
            swept = _sweep(exits, between, lost, restart, rng)
            for budget, candidate in zip(between, swept, strict=True):
                found[budget].append(candidate)
    best = [min(some, key=lambda each: each.lost) for some in found.values() if some]
    return [exit_policy(problem.graph, each.exits, each.scores, each.thresholds) for each in best]


def _sweep(
    exits: Exits,
    budgets: Iterable[float],
    lost: Matrix,
    restart: Restart,
    rng: np.random.Generator,
) -> Iterator[_Candidate]:
    """One restart at each budget, each time from where it ended at the one before."""
    scheduler: Scheduler | None = None
    for budget in budgets:
        if scheduler is None or restart.cost_weight > 0:
            *_, scheduler = alternate(exits, budget, restart, rng, scheduler)
        scores = raw_scores(exits, scheduler.scores)
        cuts = thresholds_for_budget(scores, scheduler.shares, exits.costs, budget)
        leaves = exit_of_each(scores, cuts)
        regret = float(lost[np.arange(len(exits)), leaves].mean())
        yield _Candidate(exits, scheduler.scores, cuts, regret)


def alternate(
    exits: Exits,
    budget: float,
    restart: Restart,
    rng: np.random.Generator,
    scheduler: Scheduler | None = None,
) -> Iterator[Scheduler]:
    """Fit assignment and scores in turns, and yield both after each turn.

    From nothing, the scores start with all samples counting the same; from a scheduler, with its.
    """
    turns = _TURNS if scheduler is None else 1
    if scheduler is None:
        scores = fit_scores(exits, np.full(exits.right.shape, 1 / len(exits)))
        width = assignment_inputs(exits, raw_scores(exits, scores)).shape[2]
        assignment = start_assignment(len(exits.chain), width, rng)
    else:
        scores, assignment = scheduler.scores, scheduler.assignment
    for _ in range(turns):
        raw = raw_scores(exits, scores)
        inputs = assignment_inputs(exits, raw)
        goal = aim(raw, restart.beta, exits.costs, budget, restart.cost_weight)
        assignment = fit_assignment(assignment, inputs, goal, _STEPS, rng)
        shares = assigned(assignment, inputs).astype(np.float64)
        scores = fit_scores(exits, shares / shares.sum(axis=0), scores)
        yield Scheduler(scores, assignment, shares.mean(axis=0))
