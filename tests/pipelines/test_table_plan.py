from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.output import Mode, known_manifest, opened
from pipelines.table import TABLE
from pipelines.table_plan import Plan, by_shard
from policy.errors import InputError
from policy.graph import Stage, StageGraph
from policy.manifest import written
from policy.rows import ANSWERS_SCHEMA, OK, parquet_bytes
from policy.table_manifest import TableManifest, TableNetwork, answers_path, marker_path
from transforms.commit import Output
from transforms.done import commit_shard
from transforms.shards import Shard

GRAPH = StageGraph(
    (Stage("small", 1.0, answers=True), Stage("big", 2.0, answers=True)), unit="gmac"
)
MADE_BY = {name: {"fingerprint": f"f-{name}"} for name in ("small", "big")}
GOOD, BAD = {OK: 2}, {OK: 1, "decode": 1}


def shard(name: str, size: int = 10) -> Shard:
    return Shard(name, f"in/{name}.tar", size, 0.0)


A, B = shard("a"), shard("day1/b")


def extract(output: Output, network: str, at: Shard, statuses: Mapping[str, int] = GOOD) -> None:
    says = {
        "made_by": MADE_BY[network],
        "input": at.identity,
        "shard": at.name,
        "unlabelled": 0,
        "records": 2,
        "statuses": dict(statuses),
        "errors": {},
    }
    rows = parquet_bytes([{"key": f"{at.name}/0", "status": OK}], ANSWERS_SCHEMA, says)
    files = {answers_path(network, at.name): rows}
    commit_shard(output, marker_path(network, at.name), files, says, {})


@contextmanager
def planned(
    root: Path, mode: Mode = "resume", shards: tuple[Shard, ...] = (A, B)
) -> Iterator[Plan]:
    networks = {name: TableNetwork(f"f-{name}", (name,), ()) for name in MADE_BY}
    with opened(str(root), mode, TABLE, {"--topk": "0"}) as session:
        known = session.known if mode != "overwrite" else None
        files = known.files if known else {}
        records = {at.name: 2 for at in shards}
        wanted = TableManifest(1, GRAPH, ("cat", "dog"), None, networks, records, files=files)
        yield Plan.of(session, wanted, shards, MADE_BY)


def run(root: Path, mode: Mode = "resume", shards: tuple[Shard, ...] = (A, B)) -> TableManifest:
    with planned(root, mode, shards) as plan:
        for at in plan.to_do:
            for network in plan.networks:
                extract(plan.session.output, network, at)
        plan.publish()
    manifest = known_manifest(str(root), TABLE)
    assert manifest is not None
    return manifest


def to_do(
    root: Path, mode: Mode = "resume", shards: tuple[Shard, ...] = (A, B)
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    with planned(root, mode, shards) as plan:
        return plan.networks, tuple(at.name for at in plan.to_do)


ALL = (("small", "big"), ("a", "day1/b"))


def test_at_first_all_is_to_do_and_then_nothing(tmp_path: Path) -> None:
    assert to_do(tmp_path) == ALL
    run(tmp_path)
    assert to_do(tmp_path) == to_do(tmp_path, "retry-failed") == ((), ())
    assert to_do(tmp_path, "overwrite") == ALL


def test_only_what_a_network_lacks_is_to_do(tmp_path: Path) -> None:
    output = Output(str(tmp_path), "dead")
    for at in (A, B):
        extract(output, "small", at)
    extract(output, "big", B)
    assert to_do(tmp_path) == (("big",), ("a",))


def test_retry_does_what_was_rejected_or_changed(tmp_path: Path) -> None:
    extract(Output(str(tmp_path), "dead"), "big", B, BAD)
    run(tmp_path)
    assert to_do(tmp_path, "retry-failed") == (("big",), ("day1/b",))
    assert to_do(tmp_path, "retry-failed", (shard("a", 11), B))[1] == ("a", "day1/b")


def test_resume_refuses_a_shard_that_changed_with_the_remedy(tmp_path: Path) -> None:
    run(tmp_path)
    said = (
        r"shards/small/a\.json: was made from in/a\.tar, 10 bytes; now it is 11 bytes. Extract "
        r"changed shards again with --mode retry-failed, all with --mode overwrite"
    )
    with pytest.raises(InputError, match=said), planned(tmp_path, shards=(shard("a", 11), B)):
        pytest.fail("answers for two versions of a shard would meet")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 1}'])
def test_what_has_a_damaged_marker_is_done_again(tmp_path: Path, content: str) -> None:
    run(tmp_path)
    (tmp_path / marker_path("big", "a")).write_text(content)
    assert to_do(tmp_path) == to_do(tmp_path, "retry-failed") == (("big",), ("a",))


@pytest.mark.parametrize("mode", ["resume", "retry-failed", "overwrite"])
def test_the_manifest_holds_every_file_as_it_stands(tmp_path: Path, mode: Mode) -> None:
    extract(Output(str(tmp_path), "dead"), "big", B, BAD)
    run(tmp_path)
    manifest = run(tmp_path, mode)
    assert manifest.inputs == {at.name: at.identity for at in (A, B)}
    assert len(manifest.files) == 8
    for name, file in manifest.files.items():
        assert written((tmp_path / name).read_bytes()) == file


def test_what_was_good_and_is_made_again_beside_the_bad_is_what_the_manifest_says(
    tmp_path: Path,
) -> None:
    """A run does every network that lacks something, for all shards that lack something."""
    output = Output(str(tmp_path), "dead")
    extract(output, "small", A, BAD)
    extract(output, "small", B)
    manifest = run(tmp_path, "retry-failed")
    assert len(manifest.files) == 8
    for name, file in manifest.files.items():
        assert written((tmp_path / name).read_bytes()) == file


def test_a_shard_that_changed_is_not_made_again_for_some_of_the_networks(tmp_path: Path) -> None:
    run(tmp_path)
    networks = {name: TableNetwork(f"f-{name}", (name,), ()) for name in MADE_BY}
    records = {"a": 2, "day1/b": 2}
    wanted = TableManifest(1, GRAPH, ("cat", "dog"), None, networks, records)
    with (
        opened(str(tmp_path), "retry-failed", TABLE, {"--topk": "0"}) as session,
        pytest.raises(InputError, match="shard 'a' has changed, and network 'big' of the table is"),
    ):
        Plan.of(session, wanted, (shard("a", 11), B), {"small": MADE_BY["small"]})


@pytest.mark.parametrize("other", [{OK: 1, "network": 2}, {OK: 2, "nonfinite": 1}])
def test_networks_that_reject_other_records_do_not_add_up_to_more(other: dict[str, int]) -> None:
    common = {"shard": "a", "records": 3, "unlabelled": 0, "errors": {}}
    (found,) = by_shard(
        [{**common, "statuses": {OK: 1, "nonfinite": 2}}, {**common, "statuses": other}]
    )
    assert sum(found["statuses"].values()) == 3
    assert found["statuses"][OK] == 1


def test_a_network_that_lost_a_record_stands_for_its_shard() -> None:
    common = {"shard": "a", "records": 3, "unlabelled": 0, "errors": {}}
    lost = {**common, "statuses": {OK: 2}}
    (found,) = by_shard([{**common, "statuses": {"decode": 3}}, lost])
    assert found["statuses"] == {OK: 2}


def test_a_record_without_one_of_its_answers_is_rejected_once() -> None:
    common = {"shard": "a", "records": 3, "unlabelled": 0, "errors": {}}
    good, bad = {"statuses": {OK: 3}}, {"statuses": {OK: 1, "nonfinite": 2}}
    (found,) = by_shard([{**common, **good}, {**common, **bad}, {**common, **bad}])
    assert found["statuses"] == {"nonfinite": 2, OK: 1}
