"""Fit and certify on as many rows as ImageNet has training images, and replay them.

    python benchmarks/scale.py [--rows 1280000]

Prints one line a step: seconds, and the peak memory of the process so far.
"""

import argparse
import resource
import time
from collections.abc import Sequence

import numpy as np

from policy.answers import Answers
from policy.fit import Goal, fit
from policy.graph import Stage, StageGraph
from policy.methods import METHODS, Name
from policy.mixture import Routing
from policy.problem import Problem
from policy.simulate import simulate

COSTS = {"exit": 1.0, "small": 2.0, "medium": 5.0, "large": 12.0}
K = 5


def main() -> None:
    """Make the rows, fit and certify, replay the policy; print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_280_000)
    parser.add_argument("--method", choices=list(METHODS), default="averaged")
    given = parser.parse_args()
    problem = made(given.rows)
    _say("made", 0.0)
    start = time.perf_counter()
    parts = problem.split({"fit": 0.4, "choose": 0.2, "certify": 0.4})
    _say("split", time.perf_counter() - start)
    start = time.perf_counter()
    method: Name = given.method
    fitted = fit(parts, [method], Goal(max_loss=0.01, confidence=0.95))
    _say("fit and certify", time.perf_counter() - start)
    print(fitted.certificate.text if fitted.certificate else "not certified")
    singly = [point.policy for point in fitted.proposed[method]]
    for name, policy in {"certified": fitted.policy, "busiest": _busiest(singly)}.items():
        print(name, *rate(policy, problem))


def made(n: int) -> Problem:
    """Random answers of four networks that share nothing; dearer ones are right more often."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, n).astype(np.int32)
    difficulty = rng.normal(size=n)
    outputs = {}
    for number, name in enumerate(COSTS):
        margin = 1.5 + 0.5 * number - difficulty + rng.normal(scale=0.7, size=n)
        sure = (1 / (1 + np.exp(-2 * margin))).astype(np.float32)
        right = rng.random(n) < sure
        classes = rng.integers(0, 1000, (n, K)).astype(np.int32)
        classes[:, 0] = np.where(right, labels, classes[:, 0])
        classes[:, 1] = np.where(right, classes[:, 1], labels)
        probabilities = np.stack([sure, *[(1 - sure) / (K + 1)] * (K - 1)], axis=1)
        probabilities = -np.sort(-probabilities, axis=1).astype(np.float32)
        entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-9))).sum(axis=1)
        outputs[name] = Answers(classes, probabilities, entropy.astype(np.float32))
    stages = tuple(Stage(name, cost, answers=True) for name, cost in COSTS.items())
    keys = [f"train/{number:07d}" for number in range(n)]
    return Problem(StageGraph(stages, "ms"), keys, labels, outputs, "top1", "excess")


def _busiest(policies: Sequence[Routing]) -> Routing:
    """The policy with most rules."""
    return max(policies, key=lambda policy: sum(len(arm.rules) for arm in policy.arms))


def rate(policy: Routing, problem: Problem) -> tuple[str, ...]:
    """Decisions a second, the best of three replays of all rows."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        routes = simulate(policy, problem.outputs, problem.keys)
        seconds.append(time.perf_counter() - start)
    lengths = np.array([len(trail) for trail in routes.trails])[routes.trail_of]
    decisions = float(lengths.sum())
    return (
        f"{decisions / 1e6:.2f} M decisions",
        f"{decisions / min(seconds) / 1e6:.1f} M a second",
        f"(seconds {', '.join(f'{second:.2f}' for second in seconds)})",
    )


def _say(step: str, seconds: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{step}: {seconds:.1f} s, peak {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
