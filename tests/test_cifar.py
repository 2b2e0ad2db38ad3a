"""Exits of a real ResNet-56 on real CIFAR-10 images, their heads fitted and routed.

Needs ADALABEL_DATA (default ../shared/data); skipped with a reason where it is absent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from real_data import DATA, needs
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from launch.runners import local
from pipelines import calibrate, classify, extract
from policy.bundle import Bundle, write_bundle
from policy.costs import read_costs
from policy.exits import with_exits
from policy.features import Feature
from policy.heads import Head
from policy.rules import STOP, Policy, Rule
from policy.simulate import simulate
from policy.table import Table, read_table
from policy.table_features import feature_batches
from transforms.fit_heads import fit_exits

CIFAR = DATA / "cifar10"
pytestmark = [pytest.mark.slow, needs("CIFAR-10 images", CIFAR)]

IMAGES = 2000
EXITS = tuple(f"resnet56.layer{number}.exit" for number in (1, 2, 3))
TOML = """
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


@dataclass(frozen=True)
class Cifar:
    """A table of test images, the rows that heads were fitted on, the heads, and the others."""

    networks: str
    input: str
    folder: str
    bare: Table
    fitted: NDArray[np.intp]
    others: NDArray[np.intp]
    heads: dict[str, Head]

    @property
    def table(self) -> Table:
        return with_exits(self.folder, self.bare, self.heads, 5)


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Cifar:
    folder = tmp_path_factory.mktemp("cifar")
    networks, images = folder / "networks.toml", folder / "images.parquet"
    networks.write_text(TOML.format(data=CIFAR))
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "classes.txt").write_text(names.replace(" ", "\n") + "\n")
    pq.write_table(pq.read_table(CIFAR / "test-00000.parquet").slice(0, IMAGES), images)
    options = extract.ExtractOptions(
        networks=str(networks), input=(str(images),), output=str(folder / "table")
    )
    assert extract.run(options, local(1)).records == IMAGES
    bare = read_table(options.output)
    shuffled = np.random.default_rng(0).permutation(IMAGES)
    fitted, others = shuffled[: IMAGES // 2], shuffled[IMAGES // 2 :]
    heads = fit_exits(options.output, bare, fitted, seed=0)
    return Cifar(str(networks), str(images), options.output, bare, fitted, others, heads)


def test_deeper_exits_are_better_on_other_images(
    cifar: Cifar, record_property: Callable[[str, object], None]
) -> None:
    others = cifar.table.take(cifar.others)
    right = {
        name: float((answers.classes[:, 0] == others.labels).mean())
        for name, answers in others.outputs.items()
    }
    record_property("accuracy", str(right))
    first, second, third = (right[name] for name in EXITS)
    assert 0.35 < first < second - 0.05 < third - 0.1
    assert third > right["resnet56"] - 0.03


@pytest.mark.parametrize("number", [1, 2, 3])
def test_heads_are_as_good_as_scikit_learns(
    cifar: Cifar, number: int, record_property: Callable[[str, object], None]
) -> None:
    stage, every = f"resnet56.layer{number}", np.arange(IMAGES)
    parts = feature_batches(cifar.folder, cifar.bare, stage, every)
    features = np.concatenate([x for _, x in parts]).astype(np.float64)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    theirs.fit(features[cifar.fitted], cifar.bare.labels[cifar.fitted])
    labels = cifar.bare.labels[cifar.others]
    ours = cifar.table.outputs[f"{stage}.exit"].take(cifar.others).classes[:, 0]
    found = (ours == labels).mean(), theirs.score(features[cifar.others], labels)
    record_property("accuracy, ours and scikit-learn's", str(found))
    assert found[0] > found[1] - 0.02  # 1,000 images: a standard error of 1.5 points


def exit_policy(table: Table) -> Policy:
    """From exit to exit, stopping where a third of the images is surest."""
    rules = []
    for answer, after in zip(EXITS[:2], (EXITS[1], "resnet56"), strict=True):
        entropy = np.sort(table.outputs[answer].entropy)
        middle = entropy[len(entropy) // 3 :][:30]
        widest = int(np.argmax(np.diff(middle)))
        cut = float(middle[widest] + middle[widest + 1]) / 2
        rules.append(
            Rule(answer, (STOP, after), ((0.0,), (1.0,)), (cut, 0.0), (Feature(answer, "entropy"),))
        )
    return Policy(table.graph, EXITS[0], tuple(rules))


def test_fitted_exits_are_routed_as_simulated(cifar: Cifar, tmp_path: Path) -> None:
    table = cifar.table
    policy = exit_policy(table)
    heads = {name: cifar.heads[name] for name in policy.reachable(EXITS[0]) if name in cifar.heads}
    fingerprints = {name: network.fingerprint for name, network in table.networks.items()}
    bundle = Bundle(policy, table.class_names, fingerprints, heads=heads)
    write_bundle(str(tmp_path / "policy"), bundle)
    classify.run(
        classify.ClassifyOptions(
            networks=cifar.networks,
            policy=str(tmp_path / "policy"),
            input=(cifar.input,),
            output=str(tmp_path / "labels"),
            batch_size=64,
        ),
        local(1),
    )
    routes = simulate(policy, table.outputs)
    best = routes.answers(table.outputs, 1).classes[:, 0]
    (path,) = (tmp_path / "labels").glob("*.parquet")
    rows = {row["key"]: row for row in pq.read_table(path).to_pylist()}
    trails = [tuple(rows[key]["trail"]) for key in table.keys]
    differ = [
        key
        for row, key in enumerate(table.keys)
        if (trails[row], rows[key]["label"]) != (routes.trails[routes.trail_of[row]], best[row])
    ]
    assert len(set(trails)) == 3
    assert len(differ) <= 4  # an image within rounding of a cut, or of two equal classes


def test_measured_costs_price_the_exits(cifar: Cifar, tmp_path: Path) -> None:
    costs = str(tmp_path / "costs.json")
    calibrate.run(
        calibrate.CalibrateOptions(
            networks=cifar.networks, output=costs, input=(cifar.input,), repeats=3
        )
    )
    table = with_exits(cifar.folder, cifar.bare, cifar.heads, 5, read_costs(costs))
    assert table.graph.unit == "ms"
    cost = [table.graph.cost((name,)) for name in EXITS]
    assert 0 < cost[0] < cost[1] < cost[2]
