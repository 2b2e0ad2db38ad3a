"""Which networks a policy is run on: those it was fitted for, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from policy.bundle import Bundle
from policy.errors import InputError
from policy.mixture import Mixture
from policy.rules import Policy, always
from transforms.label import check_fits, load_for_policy
from transforms.networks_file import NetworksFile, read_networks
from transforms.stages import Engine
from transforms.work import WorkerOptions

WORKER = WorkerOptions(batch_size=4, decode_threads=2, threads=0, device="cpu")
EXIT = "small.block1.exit"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))


@pytest.fixture(scope="module")
def bundle(networks: NetworksFile) -> Bundle:
    heads = {EXIT: tiny.head(np.random.default_rng(0))}
    engine = Engine(networks, "cpu", heads)
    policy = replace(tiny.POLICY, graph=engine.graph)
    return Bundle(policy, engine.class_names, engine.fingerprints, heads=heads)


@pytest.fixture(scope="module")
def engine(networks: NetworksFile, bundle: Bundle) -> Engine:
    return load_for_policy(networks, bundle, WORKER)


def test_only_the_networks_of_the_policy_are_loaded(networks: NetworksFile, bundle: Bundle) -> None:
    prints = {"big": bundle.fingerprints["big"]}
    before = torch.get_num_threads()
    try:
        one = replace(bundle, fingerprints=prints, heads={})
        engine = load_for_policy(networks, one, replace(WORKER, threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert engine.graph.answers == ("big",)


def test_a_policy_fits_the_networks_it_was_fitted_for(engine: Engine, bundle: Bundle) -> None:
    check_fits(bundle, engine)
    ours = bundle.policy.graph
    priced = ours.with_costs({stage.name: 1.0 + i for i, stage in enumerate(ours.stages)}, "ms")
    check_fits(replace(bundle, policy=always(priced, "big")), engine)


def test_networks_of_another_fingerprint_are_refused(engine: Engine, bundle: Bundle) -> None:
    other = replace(bundle, fingerprints={"small": engine.fingerprints["small"], "big": "f00"})
    with pytest.raises(InputError, match=r"'big' with fingerprint f00; the networks file gives "):
        check_fits(other, engine)


@pytest.mark.parametrize(
    ("policy", "stage"),
    [(tiny.POLICY, "small.input"), (always(tiny.GRAPH, "big"), "big.input")],
)
def test_a_policy_on_stages_that_these_networks_do_not_have_is_refused(
    engine: Engine, bundle: Bundle, policy: Policy, stage: str
) -> None:
    with pytest.raises(InputError, match=f"runs stage '{stage}' on .* extract and fit again"):
        check_fits(replace(bundle, policy=policy), engine)


def test_a_policy_is_not_asked_for_stages_it_never_runs(engine: Engine, bundle: Bundle) -> None:
    graph = bundle.policy.graph
    extra = replace(graph.stages[-1], name="elsewhere")
    check_fits(
        replace(bundle, policy=always(replace(graph, stages=(*graph.stages, extra)), "big")), engine
    )


def test_both_arms_of_a_mixture_must_fit(engine: Engine, bundle: Bundle) -> None:
    graph = bundle.policy.graph
    elsewhere = replace(graph.stages[-1], name="elsewhere")
    other = replace(graph, stages=(*graph.stages, elsewhere))
    big = always(other, "big")
    check_fits(replace(bundle, policy=Mixture(big, big, 0.5)), engine)
    mixture = Mixture(big, always(other, "elsewhere"), 0.5)
    with pytest.raises(InputError, match=r"runs stage 'elsewhere' on .* extract and fit again"):
        check_fits(replace(bundle, policy=mixture), engine)


def test_a_policy_for_imported_predictions_is_not_run(
    networks: NetworksFile, bundle: Bundle
) -> None:
    imported = replace(bundle, fingerprints={"big": "imported:big"})
    message = "fitted on imported predictions of 'big', which no network here is known to make"
    with pytest.raises(InputError, match=message):
        load_for_policy(networks, imported, WORKER)
