"""A refit whose job, networks, labelled shards, table and registry all lie in a bucket."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_refits
from gcs.world import Place, files_below, uploaded

from launch.cli import main
from transforms import bucket


@pytest.fixture
def shelved(shelf: str, tmp_path: Path) -> Place:
    """The job of tiny_refits with two of its three shards."""
    networks = tiny.write_networks(tmp_path / "networks")
    tiny_refits.make_shards(tmp_path / "labelled", str(networks))
    place = uploaded(Place(str(tmp_path)), shelf, ("networks", "labelled"))
    job = tiny_refits.JOB.replace("{shards}", "labelled")
    bucket.replace(f"{shelf}/job.toml", job.encode())
    return place


def refit(place: Place, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["refit", "--job", f"{place.root}/job.toml", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_refit_of_what_lies_in_a_bucket(
    shelved: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    first = refit(shelved, capsys)
    assert (first["new_shards"], first["promoted"]) == (["a", "b"], True)
    again = refit(shelved, capsys)
    assert (again["new_shards"], again["candidate"]) == ([], None)
    known = bucket.read(f"{shelved.root}/job.toml")
    assert known is not None
    more = known[0].replace(b'b.tar"', b'b.tar", "labelled/c.tar"')
    bucket.replace(f"{shelved.root}/job.toml", more)
    second = refit(shelved, capsys)
    assert second["new_shards"] == ["c"]
    assert second["comparison"]["n"] > 50
    assert not [name for name in files_below(f"{shelved.root}/table") if "_refit" in name]
    assert main(["verify", f"{shelved.root}/table"]) == 0
