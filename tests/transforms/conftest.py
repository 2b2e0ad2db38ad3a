"""What the tests of the router start from."""

import numpy as np
import pytest
import tiny
from tiny_routing import EXIT, IMAGES, Counting, Run, encoded, route

from policy.answers import Answers
from policy.features import Feature
from policy.rules import STOP, Policy, Rule
from transforms.extract import run_all
from transforms.networks_file import read_networks
from transforms.prepare import Prepared, prepare
from transforms.shards import Record


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    """The tiny networks with their exit, on an engine that counts."""
    networks = read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))
    return Counting(networks, "cpu", heads={EXIT: tiny.head(np.random.default_rng(5))})


@pytest.fixture(scope="session")
def images(counting: Counting) -> list[Prepared]:
    """Random images of different sizes, brightness and contrast, with all inputs made."""
    rng = np.random.default_rng(0)
    specs = counting.inputs
    records = [Record(f"s/{n}", encoded(rng)) for n in range(IMAGES)]
    return [prepare("s", n, record, specs, later=specs) for n, record in enumerate(records)]


@pytest.fixture(scope="session")
def outputs(counting: Counting, images: list[Prepared]) -> dict[str, Answers]:
    """Every answer for every image: what a table holds."""
    pixels = {name: [item.pixels[name] for item in images] for name in counting.inputs}
    return run_all(counting, pixels, None)[0]


@pytest.fixture(scope="session")
def policy(counting: Counting, outputs: dict[str, Answers]) -> Policy:
    """tiny.POLICY on the engine's own graph, with cuts where every action is taken."""
    sure = outputs[EXIT].probabilities[:, 0]
    low, high = (float(q) for q in np.quantile(sure, (0.3, 0.7)))
    unsure = float(np.quantile(outputs["small"].entropy, 0.5))
    return Policy(
        counting.graph,
        start=EXIT,
        rules=(
            Rule(
                EXIT,
                (STOP, "small", "big"),
                weights=((1.0,), (0.0,), (-1.0,)),
                bias=(-high, 0.0, low),
                features=(Feature(EXIT, "max_probability"),),
            ),
            Rule(
                "small",
                (STOP, "big"),
                weights=((0.0,), (1.0,)),
                bias=(unsure, 0.0),
                features=(Feature("small", "entropy"),),
            ),
        ),
    )


@pytest.fixture(scope="session", params=[1, 7, 64, IMAGES, 1000])
def run(
    request: pytest.FixtureRequest, policy: Policy, counting: Counting, images: list[Prepared]
) -> Run:
    """All images routed in batches of several sizes."""
    return route(policy, counting, images, request.param)
