import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_policies

from pipelines.policy_source import read_policy
from pipelines.promote import Wish, publish, rollback
from pipelines.registry import Registry, open_registry
from policy.bundle import read_bundle, write_bundle
from policy.errors import Damaged, InputError
from policy.rows import read_about
from policy.rules import always

FORCE = Wish(force=True)


@pytest.fixture
def registry(world: Any, tmp_path: Path) -> Registry:
    """Two versions: the world's own policy, and one that always takes the big network."""
    bundle = read_bundle(world.policy)
    write_bundle(str(tmp_path / "full"), replace(bundle, policy=always(bundle.policy.graph, "big")))
    made = open_registry(str(tmp_path / "policies"))
    publish(made, world.policy, FORCE)
    publish(made, str(tmp_path / "full"), FORCE)
    return made


def test_a_policy_is_named_by_folder_registry_and_version(world: Any, registry: Registry) -> None:
    own = read_bundle(world.policy)
    assert read_policy(world.policy).version is None
    assert read_policy(world.policy).made_by == {"policy": own.digest}
    assert read_policy(registry.root).version == registry.find("2")
    assert read_policy(f"{registry.root}@CURRENT").version == registry.find("2")
    first = registry.find("1")
    for named in ("1", first.digest, first.digest[:8]):
        found = read_policy(f"{registry.root}@{named}")
        assert (found.version, found.bundle.digest) == (first, own.digest)
        assert found.made_by == {"policy": own.digest, "policy version": first.name}


def test_a_policys_folder_may_have_an_at_in_its_name(tmp_path: Path) -> None:
    folder = tiny_policies.write(tmp_path / "ann@work", 0.5)
    assert read_policy(folder).version is None


def test_the_file_of_a_policy_instead_of_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tiny_policies.write(tmp_path / "policy", 0.5)
    with pytest.raises(InputError, match=r"policy.json: no policy.json there, and no registry of"):
        read_policy(f"{folder}/policy.json")


@pytest.mark.parametrize("named", ["none", "none@3", "s3://shelf/none", "s3://shelf/none@2"])
def test_a_policy_that_is_not_there_is_refused(
    named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.policy_source.exists", lambda _: False)
    with pytest.raises(InputError, match=f"{named}: no policy.json there, and no registry of"):
        read_policy(named)


def test_a_registry_without_current_is_refused(tmp_path: Path) -> None:
    made = open_registry(str(tmp_path / "r"))
    publish(made, tiny_policies.write(tmp_path / "p", 0.5), Wish(promote=False))
    with pytest.raises(InputError, match="no policy was promoted there"):
        read_policy(made.root)


def test_every_label_file_and_the_receipt_name_the_version(
    world: Any, registry: Registry, tmp_path: Path
) -> None:
    receipt = world.classify(tmp_path / "out", policy=registry.root)
    version = registry.current()
    assert version is not None
    assert receipt.version == version
    assert f"policy    version 2 (sha256 {version.digest[:12]})" in receipt.text()
    for shard in ("s0", "s1", "s2"):
        made_by = read_about(pq.read_schema(tmp_path / f"out/{shard}.parquet"))["made_by"]
        assert made_by["policy version"] == version.name
        assert made_by["policy"] == version.policy == receipt.policy
    written = json.loads((tmp_path / "out/_receipt.json").read_text())
    assert written["version"]["digest"] == version.digest
    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())
    assert manifest["made_by"]["policy version"] == version.name


def test_a_run_that_is_resumed_after_current_moved_is_told_how_to_go_on(
    world: Any, registry: Registry, tmp_path: Path
) -> None:
    first = f"{world.folder}/s0.tar"
    world.classify(tmp_path / "out", policy=registry.root, input=(first,))
    rollback(registry, None, "")
    said = re.compile(
        r"was made with policy .* begun with version 2 \(sha256 \w+\) of a registry, and --policy "
        r"names version 1 .*CURRENT has moved, .* --policy REGISTRY@2; or choose another --output"
    )
    with pytest.raises(InputError, match=said):
        world.classify(tmp_path / "out", policy=registry.root)
    receipt = world.classify(tmp_path / "out", policy=f"{registry.root}@2")
    assert receipt.records == 126


def test_a_policy_that_was_tampered_with_labels_nothing(
    world: Any, registry: Registry, tmp_path: Path
) -> None:
    version = registry.current()
    assert version is not None
    path = Path(version.folder) / "policy.json"
    path.write_text(path.read_text().replace('"cost": ', '"cost": 1'))
    with pytest.raises(Damaged, match="is not what was published"):
        world.classify(tmp_path / "out", policy=registry.root)
    assert not (tmp_path / "out").exists()


def test_a_version_can_be_evaluated(world: Any, registry: Registry) -> None:
    assert world.evaluate(policy=registry.root).usage["big"].exits == 1
    assert world.evaluate(policy=f"{registry.root}@1") == world.evaluate()
