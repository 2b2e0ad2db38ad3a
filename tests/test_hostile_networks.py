"""The hostile weights and policies of the data: each refused readably, or loaded."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import real_data
import tiny
import torch

from policy.bundle import POLICY, read_bundle
from policy.errors import InputError
from policy.heads import heads_from_bytes
from transforms.networks import _state, load_network
from transforms.networks_file import NetworksFile, read_networks

HOSTILE = real_data.HOSTILE / "generated"
pytestmark = real_data.needs("hostile files", HOSTILE)
EXPECTED: dict[str, str] = {}
if HOSTILE.is_dir():
    with (HOSTILE / "EXPECT.csv").open(encoding="utf-8", newline="") as lines:
        EXPECTED = {row[0]: row[3] for row in csv.reader(lines)}

POLICIES = {
    "policy/empty.json": "not valid JSON: Expecting value",
    "policy/nan_threshold.json": "not valid JSON: NaN is not a JSON number",
    "policy/threshold_2.json": "version: Field required",
    "policy/plain.json": "version: Field required",
}
"""What is said of each. plain.json is to be accepted by a program whose schema it is, not ours;
threshold_2.json is refused, but for its schema, before its threshold is looked at."""


@pytest.fixture
def networks(tmp_path: Path) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path)))


def test_every_file_has_its_test() -> None:
    ours = {name for name in EXPECTED if name.startswith("policy/")}
    assert ours == POLICIES.keys()
    assert len([name for name in EXPECTED if name.startswith("model/")]) == 3


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_of_another_schema_is_refused_readably(name: str, tmp_path: Path) -> None:
    (tmp_path / POLICY).write_bytes((HOSTILE / name).read_bytes())
    with pytest.raises(InputError) as caught:
        read_bundle(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/{POLICY}: ")
    assert POLICIES[name] in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("model/")])
def test_weights_are_read_or_refused_as_expected(name: str, networks: NetworksFile) -> None:
    content = (HOSTILE / name).read_bytes()
    spec = replace(networks.network[0], weights=str(HOSTILE / name))
    if EXPECTED[name] == "accept":
        assert torch.equal(_state(content, spec)["w"], torch.tensor([0.0, 1.0, 2.0, 3.0]))
        with pytest.raises(InputError, match=r"does not fit tiny_networks:branchy .*Missing key"):
            load_network(spec, networks, ("a",) * 4)
        return
    with pytest.raises(InputError, match="holds no readable weights: SafetensorError: "):
        load_network(spec, networks, ("a",) * 4)
    with pytest.raises(InputError, match="not a safetensors file: "):
        heads_from_bytes(content, name)
