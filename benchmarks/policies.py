"""What the fitting methods reach on recorded predictions, beside figures of the papers.

    python benchmarks/policies.py imagenet|frugalml|cifar --data ../shared/data [--seeds 3]

Half of the keys is for everything fitted (three fifths of it fit, two fifths choose), the other
half is only measured. A curve is that of the policies which the choosing part keeps, read on the
measured half between neighbours as a mixture of them would be.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from launch.runners import local
from pipelines import extract
from policy.answers import Answers, answers_from_probabilities
from policy.certify import safe_to_bold
from policy.choose import within_budget, within_loss
from policy.evaluate import Point, evaluate, measure
from policy.exits import with_exits
from policy.graph import Stage, StageGraph
from policy.losses import Metric
from policy.methods import METHODS, Name
from policy.problem import Problem
from policy.split import split
from policy.table import read_table
from transforms.fit_heads import fit_exits

LOSSES = (0.0, 0.005, 0.01, 0.02)
NETWORKS = ("alexnet", "resnet18", "resnet34", "resnet50", "resnet152")
CIFAR_BUDGETS = (0.5, 0.7, 0.9)
CIFAR_SHARES = {"heads": 0.2, "fit": 0.2, "choose": 0.1, "test": 0.5}
CIFAR_NETWORKS = """
classes = "classes.txt"
import_path = ["{data}/networks"]

[[network]]
name    = "resnet56"
model   = "cifar_resnet:cifar_resnet"
kwargs  = {{ depth = 56 }}
weights = "{data}/networks/resnet56.safetensors"
input   = {{ resize = [32, 32], mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
exits   = ["layer1", "layer2", "layer3"]
"""
SHARES = {"fit": 0.3, "choose": 0.2, "test": 0.5}


def main() -> None:
    """Print one benchmark's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["imagenet", "frugalml", "cifar"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    given = parser.parse_args()
    run = {"imagenet": imagenet, "frugalml": frugalml, "cifar": cifar}[given.what]
    with threadpool_limits(limits=1):
        for line in run(given.data, range(given.seeds), given.methods):
            print(line, flush=True)


def answers(path: Path) -> tuple[Sequence[str], np.ndarray, Answers]:
    """Keys, labels and answers of one file of recorded predictions."""
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    if "classes" in columns:
        classes = np.stack(columns["classes"])
        probabilities = np.stack(columns["probabilities"])
    else:
        classes, probabilities = columns["predicted"][:, None], columns["confidence"][:, None]
    found = answers_from_probabilities(classes.astype(np.int32), probabilities.astype(np.float32))
    return table["key"].to_pylist(), columns["label"].astype(np.int32), found


def problem(files: Mapping[str, Path], costs: Mapping[str, float], unit: str) -> Problem:
    """The problem of networks that share nothing, cheapest first."""
    names = sorted(files, key=lambda name: costs[name])
    read = {name: answers(files[name]) for name in names}
    keys, labels, _ = read[names[0]]
    graph = StageGraph(tuple(Stage(name, costs[name], answers=True) for name in names), unit)
    return Problem(graph, keys, labels, {name: found for name, (_, _, found) in read.items()})


def imagenet_problem(data: Path, networks: Sequence[str] = NETWORKS) -> Problem:
    """ImageNet validation predictions at the published milliseconds."""
    folder = data / "predictions" / "imagenet_val"
    about = json.loads((folder / "costs.json").read_text())["networks"]
    costs = {
        row["name"].partition("_")[0]: row["titan_x_pascal_forward_ms_per_image"]
        for row in about
        if "titan_x_pascal_forward_ms_per_image" in row
    }
    return problem({name: folder / f"{name}_pytorch.parquet" for name in networks}, costs, "ms")


def curve(points: Sequence[Point], loss: float, full: float) -> float:
    """The cost at which policies, safe to bold, lose `loss`; between two of them a mixture."""
    cost = np.array([point.cost for point in points])
    lost = np.array([point.regret for point in points]) - loss
    best = float(min([full, *cost[lost <= 0]]))
    for over in np.flatnonzero(lost > 0):
        for under in np.flatnonzero(lost <= 0):
            share = lost[over] / (lost[over] - lost[under])
            best = min(best, float(share * cost[under] + (1 - share) * cost[over]))
    return best


def imagenet(data: Path, seeds: Sequence[int], methods: Sequence[Name]) -> Iterator[str]:
    """Speed-ups against resnet152 at four losses, each the mean over the seeds' halves."""
    for metric in ("top5", "top1"):
        yield from _speedups(imagenet_problem(data), metric, seeds, methods)


def _speedups(
    whole: Problem, metric: Metric, seeds: Sequence[int], methods: Sequence[Name]
) -> Iterator[str]:
    heads = " | ".join(f"@{loss:.1%}" for loss in LOSSES)
    chosen_heads = " | ".join(f"asked {loss:.1%}: speed-up, lost" for loss in LOSSES[1:])
    yield f"\n{metric}, {len(seeds)} halves\n\n| method | {heads} | {chosen_heads} | fit, s |"
    yield "|---" * (len(LOSSES) * 2 + 1) + "|"
    rows: dict[str, list[tuple[list[float], list[tuple[float, float]], float]]] = {}
    for seed in seeds:
        given = replace(whole, metric=metric, objective="loss", seed=seed).split(SHARES)
        everything: dict[Point, None] = {}
        spent = 0.0
        for name in methods:
            points, seconds = _points(given, name)
            everything |= dict.fromkeys(points)
            spent += seconds
            rows.setdefault(name, []).append((*_read(points, given["test"]), seconds))
        rows.setdefault("best", []).append((*_read(list(everything), given["test"]), spent))
    for name, found in rows.items():
        curves, chosen, seconds = (np.array(column) for column in zip(*found, strict=True))
        cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(curves.mean(0), curves.std(0), strict=True)]
        cells += [f"{speed:.2f}, {lost:.2%}" for speed, lost in chosen.mean(0)]
        yield f"| {name} | {' | '.join(cells)} | {seconds.mean():.0f} |"


def _points(parts: Mapping[str, Problem], name: Name) -> tuple[list[Point], float]:
    """What a method proposes, measured on the part that chooses, and the seconds of fitting."""
    start = time.perf_counter()
    proposed = dict.fromkeys([*METHODS["single"](parts["fit"]), *METHODS[name](parts["fit"])])
    seconds = time.perf_counter() - start
    return measure(proposed, parts["choose"]), seconds


def _read(points: Sequence[Point], test: Problem) -> tuple[list[float], list[tuple[float, float]]]:
    """The curve's speed-ups, and those of policies chosen in advance with what they really lost."""
    full = test.graph.cost((test.graph.full,))
    kept = measure(safe_to_bold(points), test)
    policies = [within_loss(points, loss).policy for loss in LOSSES[1:]]
    chosen = [(full / point.cost, point.regret) for point in measure(policies, test)]
    return [full / curve(kept, loss, full) for loss in LOSSES], chosen


def frugalml(data: Path, seeds: Sequence[int], methods: Sequence[Name]) -> Iterator[str]:
    """Accuracy and dollars per 10,000 against the best single service, on the measured half."""
    folder = data / "predictions" / "frugalml"
    about = json.loads((folder / "costs.json").read_text())["sets"]
    yield "\n| set | method | best alone: accuracy, USD | same accuracy: measured, USD, saved |"
    yield "|---|---|---|---|"
    for name, details in about.items():
        files = {api["name"]: folder / api["file"] for api in details["apis"]}
        usd = {api["name"]: api["usd_per_10k"] for api in details["apis"]}
        for method in methods:
            rows = [_frugal(problem(files, usd, "usd"), seed, method) for seed in seeds]
            best, best_usd, found, found_usd = np.mean(rows, axis=0)
            yield (
                f"| {name} | {method} | {best:.1%}, {best_usd:.2f} | {found:.1%}, {found_usd:.2f}, "
                f"{1 - found_usd / best_usd:.0%} |"
            )


def _frugal(whole: Problem, seed: int, method: Name) -> tuple[float, float, float, float]:
    """The best service alone and the policy chosen to be no worse: accuracies and dollars."""
    parts = replace(whole, objective="loss", seed=seed).split(SHARES)
    singles = METHODS["single"](parts["fit"])
    alone = min(measure(singles, parts["choose"]), key=lambda point: point.regret)
    proposed = dict.fromkeys([*singles, *METHODS[method](parts["fit"])])
    chosen = within_loss(measure(proposed, parts["choose"]), alone.regret)
    best, found = (evaluate(point.policy, parts["test"]) for point in (alone, chosen))
    return best.top1, best.cost, found.top1, found.cost


def cifar(data: Path, seeds: Sequence[int], methods: Sequence[Name]) -> Iterator[str]:
    """ResNet-56 with exits after its stages: accuracy and realised cost at three budgets."""
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_cifar_table(data, Path(folder), seeds, methods))
    yield from rows


def _cifar_table(
    data: Path, folder: Path, seeds: Sequence[int], methods: Sequence[Name]
) -> Iterator[str]:
    table = cifar_table(data, folder)
    yield f"\n{len(seeds)} splits of the 5,000 test images; budgets in costs of ResNet-56"
    yield "\n| method | " + " | ".join(f"accuracy, cost / {b:.0%}" for b in CIFAR_BUDGETS) + " |"
    yield "|---" * (len(CIFAR_BUDGETS) + 1) + "|"
    for method in methods:
        found = np.array([_cifar(table, seed, method) for seed in seeds])
        cells = [
            f"{accuracy:.2%}, {ratio:.3f} (worst {worst:+.1%})"
            for (accuracy, ratio), worst in zip(
                found.mean(0), (np.abs(found[..., 1] - 1)).max(0), strict=True
            )
        ]
        yield f"| {method} | {' | '.join(cells)} |"


def cifar_table(data: Path, folder: Path) -> str:
    """A table of the 5,000 test images with the features of ResNet-56's three stages."""
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "classes.txt").write_text(names.replace(" ", "\n") + "\n")
    networks = folder / "networks.toml"
    networks.write_text(CIFAR_NETWORKS.format(data=(data / "cifar10").absolute()))
    options = extract.ExtractOptions(
        networks=str(networks),
        input=(str(data / "cifar10" / "test-00000.parquet"),),
        output=str(folder / "table"),
    )
    extract.run(options, local(1))
    return options.output


def _cifar(folder: str, seed: int, method: Name) -> list[tuple[float, float]]:
    """At each budget: the accuracy on the measured half, and realised over asked cost."""
    table = read_table(folder)
    rows = split(table.keys, CIFAR_SHARES, seed)["heads"]
    heads = fit_exits(folder, table, rows, seed)
    whole = with_exits(folder, table, heads, table.k).problem("top1", "loss", seed)
    parts = whole.split(CIFAR_SHARES)
    full = whole.graph.cost((whole.graph.full,))
    proposed = dict.fromkeys([*METHODS["single"](parts["fit"]), *METHODS[method](parts["fit"])])
    points = measure(proposed, parts["choose"])
    found = []
    for budget in CIFAR_BUDGETS:
        policy = within_budget(points, budget * full, seed).policy
        done = evaluate(policy, parts["test"])
        found.append((done.top1, done.cost / (budget * full)))
    return found


if __name__ == "__main__":
    main()
