"""Does the certificate keep its promise, and what does that cost? Prints two Markdown tables.

Of 1,000 simulated fits per row, how many policies truly lose more than was asked, and how much of
the saving of an oracle that knows the truth is left; and how tight the bounds are.

    python benchmarks/certificate.py [--data ../shared/data] [--fits 1000]

With --data, the population is also 20,000 ImageNet validation images with the recorded predictions
of two networks, and the policies are those of `fit --method dag` on 5,000 others.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from policy import certify as certifying
from policy.answers import Answers, answers_from_probabilities
from policy.bounds import hoeffding_bentkus, upper_bound
from policy.evaluate import Point, realised
from policy.features import Feature
from policy.fit_dag import propose
from policy.graph import Stage, StageGraph
from policy.losses import Metric, Objective
from policy.mixture import Routing
from policy.problem import Problem
from policy.rules import STOP, Policy, Rule

CONFIDENCE = 0.95
OBJECTIVES: tuple[Objective, Objective] = ("excess", "loss")


@dataclass(frozen=True)
class Population:
    """All images there are, and what every proposed policy realises on them."""

    name: str
    whole: Problem
    cost: dict[Routing, NDArray[np.float64]]
    regret: dict[Routing, NDArray[np.float64]]

    def realised(
        self, policy: Routing, part: Problem
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As policy.evaluate.realised, looked up: labels are the numbers of the images drawn."""
        return self.cost[policy][part.labels], self.regret[policy][part.labels]

    def draw(self, n: int, rng: np.random.Generator) -> Problem:
        """N images, independently."""
        rows = rng.integers(0, len(self.whole), n).astype(np.int32)
        nothing = Answers(np.zeros((n, 1), np.int32), *np.zeros((2, n), np.float32))
        outputs = dict.fromkeys(self.whole.graph.answers, nothing)
        objective = self.whole.objective
        return Problem(self.whole.graph, [""] * n, rows, outputs, "top1", objective)

    def points(self, part: Problem) -> list[Point]:
        """The policies measured on some images."""
        found = {policy: self.realised(policy, part) for policy in self.cost}
        return [Point(p, float(c.mean()), float(r.mean())) for p, (c, r) in found.items()]


def population(name: str, whole: Problem, policies: list[Policy]) -> Population:
    """Replay the policies on all images."""
    found = {policy: realised(policy, whole) for policy in dict.fromkeys(policies)}
    costs = {policy: cost for policy, (cost, _) in found.items()}
    return Population(name, whole, costs, {policy: lost for policy, (_, lost) in found.items()})


def synthetic(objective: Objective, levels: int) -> Population:
    """Two networks; the small one is the likelier right the surer it is, at so many levels."""
    rng = np.random.default_rng(0)
    n = 20_000
    level = rng.integers(0, levels, n)
    small = rng.random(n) < 0.55 + 0.44 * level / (levels - 1)
    full = np.where(small, rng.random(n) < 0.97, rng.random(n) < 0.85)
    sure = (0.51 + 0.48 * level / (levels - 1)).astype(np.float32)
    graph = StageGraph((Stage("small", 1.0, answers=True), Stage("full", 9.0, answers=True)), "ms")
    outputs = {"small": _two_classes(small, sure), "full": _two_classes(full, sure)}
    whole = Problem(graph, [""] * n, np.zeros(n, np.int32), outputs, "top1", objective)
    cuts = np.linspace(1, 0.5, min(levels, 60) + 1)
    feature = Feature("small", "max_probability")
    policies = [
        Policy(
            graph,
            "small",
            (Rule("small", (STOP, "full"), ((1.0,), (0.0,)), (-float(cut), 0.0), (feature,)),),
        )
        for cut in cuts
    ]
    return population(f"synthetic, {levels} levels", whole, policies)


def _two_classes(right: NDArray[np.bool_], sure: NDArray[np.float32]) -> Answers:
    best = np.where(right, 0, 1).astype(np.int32)
    return Answers(np.stack([best, 1 - best], axis=1), np.stack([sure, 1 - sure], axis=1), 1 - sure)


def imagenet(data: Path, metric: Metric, objective: Objective) -> Population:
    """Recorded predictions; policies are fitted on the first 5,000 images."""
    costs = {"resnet18_pytorch": 0.6338, "resnet152_pytorch": 4.7156}
    tables = {n: pq.read_table(data / f"predictions/imagenet_val/{n}.parquet") for n in costs}
    outputs = {
        name: answers_from_probabilities(
            np.array(table["classes"].to_pylist(), np.int32),
            np.array(table["probabilities"].to_pylist(), np.float32),
        )
        for name, table in tables.items()
    }
    first = next(iter(tables.values()))
    graph = StageGraph(tuple(Stage(name, cost, answers=True) for name, cost in costs.items()), "ms")
    labels = first["label"].to_numpy().astype(np.int32)
    every = Problem(graph, first["key"].to_pylist(), labels, outputs, metric, objective)
    policies = propose(every.take(np.arange(5000)))
    return population(f"ImageNet, {metric}", every.take(np.arange(5000, len(every))), policies)


@dataclass(frozen=True)
class Row:
    """One line of the table; `power` is the mean share of the oracle's saving that is kept."""

    population: Population
    order: str
    n: int
    max_loss: float

    def fit(self, rng: np.random.Generator) -> list[Routing]:
        """The policies in the order in which they are tested."""
        proposed = list(self.population.cost)
        if self.order == "bold first":
            return sorted(proposed, key=lambda policy: self.population.cost[policy].mean())
        if self.order == "random":
            return [proposed[number] for number in rng.permutation(len(proposed))]
        return certifying.safe_to_bold(self.population.points(self.population.draw(self.n, rng)))

    def simulate(self, fits: int) -> tuple[float, float]:
        """The share of violations, and the power."""
        on, rng = self.population, np.random.default_rng(1)
        loss = {policy: float(regret.mean()) for policy, regret in on.regret.items()}
        full = on.whole.graph.cost((on.whole.graph.full,))
        saving = {policy: full - float(cost.mean()) for policy, cost in on.cost.items()}
        oracle = max([0.0, *(saving[p] for p in saving if loss[p] <= self.max_loss)])
        broken, saved = 0, 0.0
        with (
            mock.patch.object(certifying, "realised", on.realised),
            mock.patch.object(certifying, "upper_bound", return_value=0.0),  # decides nothing
        ):
            for _ in range(fits):
                kept, _ = certifying.certify(
                    self.fit(rng), on.draw(self.n, rng), self.max_loss, CONFIDENCE
                )
                broken += loss.get(kept, 0.0) > self.max_loss
                saved += saving.get(kept, 0.0)
        return broken / fits, saved / fits / oracle


def rows(data: Path | None) -> Iterator[Row]:
    """What is simulated."""
    for objective in OBJECTIVES:
        ties, smooth = synthetic(objective, 12), synthetic(objective, 2000)
        yield Row(ties, "fitted", 200, 0.05)
        yield Row(ties, "fitted", 5000, 0.05)
        for n, max_loss in ((200, 0.05), (1000, 0.02), (5000, 0.01)):
            yield Row(smooth, "fitted", n, max_loss)
        yield Row(smooth, "random", 1000, 0.05)
        yield Row(smooth, "bold first", 1000, 0.05)
        for metric in ("top1", "top5") if data is not None else ():
            recorded = imagenet(data, metric, objective)
            for n in (1000, 5000):
                yield Row(recorded, "fitted", n, 0.01)


def betting(regret: NDArray[np.float64], confidence: float) -> float:
    """The upper bound of Waudby-Smith & Ramdas (2023), one-sided, predictable plug-in bets."""
    kept, n = (1 - regret) / 2, len(regret)
    count = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(kept)) / (count + 1)
    variance = (0.25 + np.cumsum((kept - mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    bets = np.sqrt(2 * math.log(1 / (1 - confidence)) / (n * before))

    def refuted(loss: float) -> bool:
        level = (1 - loss) / 2
        wealth = np.cumsum(np.log1p(np.minimum(bets, 0.75 / level) * (kept - level)))
        return bool(wealth.max() >= -math.log(1 - confidence))

    return least(refuted, float(regret.mean()))


def least(refuted: Callable[[float], bool], low: float) -> float:
    """The least loss that is refuted, by halving."""
    high = 1 - 1e-9
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def print_bounds() -> None:
    """How far above the measured loss each bound lies."""
    print("\n| n | lost | gained | trinomial | betting | two binomials | Hoeffding-Bentkus |")
    print("|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(2)
    for n, lost, gained in ((500, 0, 0), (500, 20, 20), (5000, 150, 120), (25_000, 1250, 1000)):
        regret = np.repeat([1.0, -1.0, 0.0], [lost, gained, n - lost - gained])
        mean = float(regret.mean())
        tri = upper_bound(regret, "loss", CONFIDENCE)
        bets = float(np.median([betting(rng.permutation(regret), CONFIDENCE) for _ in range(51)]))
        half = (1 + CONFIDENCE) / 2
        most_lost = upper_bound(np.maximum(regret, 0), "excess", half)
        two = most_lost - 1 + upper_bound((regret >= 0).astype(np.float64), "excess", half)
        both = least(lambda x, m=mean, n=n: hoeffding_bentkus(m, n, x) <= 1 - CONFIDENCE, mean)
        margins = " | ".join(f"+{100 * (bound - mean):.2f}" for bound in (tri, bets, two, both))
        print(f"| {n} | {lost} | {gained} | {margins} |", flush=True)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fits", type=int, default=1000)
    options = parser.parse_args()
    risk = 1 - CONFIDENCE
    limit = risk + 2 * math.sqrt(risk * (1 - risk) / options.fits)
    print("| population | objective | order | n | max loss | violations | at most | power |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(options.data):
        broken, power = row.simulate(options.fits)
        print(
            f"| {row.population.name} | {row.population.whole.objective} | {row.order} | {row.n} "
            f"| {row.max_loss:.0%} | {broken:.1%} | {limit:.1%} | {power:.0%} |",
            flush=True,
        )
    print_bounds()


if __name__ == "__main__":
    main()
