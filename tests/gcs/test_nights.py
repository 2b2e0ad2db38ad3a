"""Nights whose job, networks, registry, corpus and labels all lie in a bucket."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from gcs.world import Place, uploaded

from launch.cli import main
from transforms import bucket

JOB = """
networks = "networks/networks.toml"
policies = "policies"
input    = ["corpus/*.tar"]
output   = "labels"
[run]
batch-size = 8
threads = 1
"""


@pytest.fixture
def shelved(shelf: str, tmp_path: Path) -> Place:
    """Two shards of twelve images, and a policy in use."""
    rng = np.random.default_rng(0)
    tiny.write_networks(tmp_path / "networks")
    tiny.write_tar(tmp_path / "labelled" / "t.tar", tiny.image_members(rng, 200))
    for name in ("a", "b"):
        tiny.write_tar(tmp_path / "corpus" / f"{name}.tar", tiny.image_members(rng, 12))
    (tmp_path / "job").mkdir()
    table, policy = str(tmp_path / "table"), str(tmp_path / "policy")
    networks = ["--networks", str(tmp_path / "networks/networks.toml")]
    labelled = ["--input", str(tmp_path / "labelled/t.tar")]
    assert main(["extract", *networks, *labelled, "--output", table]) == 0
    fit = ["fit", "--table", table, "--policy", policy, "--max-loss", "0.3", "--no-exits"]
    assert main([*fit, "--test-share", "0", "--choose-share", "0.5"]) == 0
    place = uploaded(Place(str(tmp_path)), shelf, ("networks", "corpus"))
    bucket.replace(f"{shelf}/job.toml", JOB.encode())
    publish = ["policy", "publish", "--registry", f"{shelf}/policies", "--policy", policy]
    assert main([*publish, "--force"]) == 0
    return place


def night(place: Place, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["nightly", "--job", f"{place.root}/job.toml", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_new_and_rewritten_shards_of_a_bucket_are_labelled_once(
    shelved: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = night(shelved, capsys)["nights"]
    assert (record["new"], record["records"]) == (2, 24)
    rng = np.random.default_rng(1)
    for name, count in (("a", 5), ("c", 7)):
        path = tiny.write_tar(tmp_path / "more" / f"{name}.tar", tiny.image_members(rng, count))
        bucket.replace(f"{shelved.root}/corpus/{name}.tar", path.read_bytes())
    receipt = night(shelved, capsys)
    (record,) = receipt["nights"]
    assert (record["new"] + record["late"], record["rewritten"], record["records"]) == (1, 1, 12)
    assert (receipt["shards"], receipt["records"]) == (3, 24)
    assert night(shelved, capsys)["nights"][0]["message"] == "nothing to do"
    assert main(["verify", f"{shelved.root}/labels"]) == 0
    content, _ = bucket.read(f"{shelved.root}/labels/_nights.log") or (b"", 0)
    assert len(content.splitlines()) == 3
