"""adalabel demo, as a newcomer meets it."""

import tarfile
from pathlib import Path

import pytest

from launch.runners import local
from pipelines import demo
from pipelines.demo_data import SHARD_RECORDS, load_parts, write_shards
from policy.errors import InputError


@pytest.mark.slow
def test_the_demo_labels_more_cheaply_than_the_large_network_alone(tmp_path: Path) -> None:
    output = str(tmp_path / "demo")
    receipt = demo.run(demo.DemoOptions(output=output), local(1))
    lines = {line.name: line for line in receipt.lines}

    assert lines["small"].accuracy < lines["medium"].accuracy < lines["large"].accuracy
    assert lines["adaptive"].cost_ms < lines["large"].cost_ms
    assert lines["adaptive"].accuracy > lines["large"].accuracy - 0.03
    assert sum(receipt.exits.values()) == receipt.images
    assert "adaptive" in receipt.text()
    assert all(Path(path).exists() for what, path in receipt.files.items() if what != "corpus")


def test_what_an_earlier_demo_left_is_replaced(tmp_path: Path) -> None:
    first = demo._fresh_folder(str(tmp_path / "demo"))
    (first / "table").write_text("of another run")
    assert not (demo._fresh_folder(str(tmp_path / "demo")) / "table").exists()


def test_networks_table_and_corpus_never_share_an_image() -> None:
    parts = load_parts(seed=0)
    keys = [set(part.keys) for part in parts.values()]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 1797
    assert min(map(len, keys)) > 500


def test_a_folder_the_demo_did_not_make_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(InputError, match="was not made by a demo; choose another --output"):
        demo.run(demo.DemoOptions(output=str(tmp_path)), local(1))
    assert (tmp_path / "precious").read_text() == "mine"


def test_shards_hold_every_digit_once(tmp_path: Path) -> None:
    corpus = load_parts(seed=0)["corpus"]
    write_shards(tmp_path, "corpus", corpus)
    names = []
    for path in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(path) as archive:
            names += [name for name in archive.getnames() if name.endswith(".png")]
    assert names == [f"{key}.png" for key in corpus.keys]
    assert len(list(tmp_path.glob("*.tar"))) == -(-len(names) // SHARD_RECORDS)
