"""Every command on gs:// as on a local disk: shards in, table, policy and labels out."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from gcs import world
from gcs.front import Front
from gcs.world import Place, decisions, ended, files_below, policy_of, run, started

from launch.cli import main
from transforms import bucket

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Both:
    """The same corpus, table, policy and labels, here and in a bucket; not to be changed."""

    here: Place
    there: Place


@pytest.fixture(scope="module")
def both(module_front: Front, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    here = world.make(tmp_path_factory.mktemp("here"))
    bucket.client().create_bucket("corpus")
    there = world.uploaded(here, "gs://corpus", ["networks", "shards"])
    assert main(here.options("extract", "table")) == 0
    assert main(here.fit()) == 0
    assert main(here.options("classify", "labels")) == 0
    run(there.options("extract", "table"))
    run(there.fit())
    run(there.options("classify", "labels"))
    del module_front
    return Both(here, there)


def test_labels_in_a_bucket_equal_those_on_a_disk(both: Both) -> None:
    found = decisions(f"{both.there.root}/labels")
    assert found == decisions(f"{both.here.root}/labels")
    assert sum(map(len, found.values())) == 3 * world.RECORDS
    assert len({trail for rows in found.values() for _, _, trail, _ in _hashable(rows)}) > 1


def _hashable(rows: list[tuple]) -> list[tuple]:
    return [(key, label, tuple(trail or ()), status) for key, label, trail, status in rows]


def test_the_table_and_the_policy_are_the_same(both: Both) -> None:
    assert policy_of(both.here.root) == policy_of(both.there.root)
    tables = [files_below(f"{place.root}/table") for place in (both.here, both.there)]
    assert tables[0].keys() == tables[1].keys()


def test_nothing_is_left_behind(both: Both) -> None:
    names = {"_manifest.json", "_receipt.json", "_run.json"}
    names |= {f"{n}.{kind}" for n in ("a [1]", "rows", "tf") for kind in ("json", "parquet")}
    assert files_below(f"{both.there.root}/labels").keys() == names


def test_a_marker_names_the_generation_that_was_read(both: Both) -> None:
    says = json.loads(files_below(f"{both.there.root}/labels")["rows.json"])
    found = bucket.stat(f"{both.there.root}/shards/rows.parquet")
    assert found is not None
    wanted = f"{both.there.root}/shards/rows.parquet, {found.size} bytes, "
    assert says["input"] == f"{wanted}generation {found.generation}"


def test_two_workers_label_the_same(both: Both) -> None:
    run(both.there.options("classify", "two", "--workers", "2"))
    assert decisions(f"{both.there.root}/two") == decisions(f"{both.here.root}/labels")


def test_a_finished_run_has_nothing_to_do_again(both: Both) -> None:
    before = files_below(f"{both.there.root}/labels")
    assert main(both.there.options("classify", "labels")) == 0
    assert files_below(f"{both.there.root}/labels") == before


def test_all_is_labelled_again_and_replaced(both: Both, capsys: pytest.CaptureFixture) -> None:
    assert main(both.there.options("classify", "again")) == 0
    before = bucket.stat(f"{both.there.root}/again/rows.parquet")
    assert main(both.there.options("classify", "again", "--mode", "overwrite")) == 0
    after = bucket.stat(f"{both.there.root}/again/rows.parquet")
    assert before is not None
    assert after is not None
    assert decisions(f"{both.there.root}/again") == decisions(f"{both.here.root}/labels")
    assert not [n for n in files_below(f"{both.there.root}/again") if n.startswith("_next")]
    assert main(["verify", f"{both.there.root}/again"]) == 0
    assert "3 shards" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["labels", "table"])
def test_what_lies_in_a_bucket_is_verified(
    both: Both, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", f"{both.there.root}/{what}"]) == 0
    assert f"{3 * world.RECORDS} records" in capsys.readouterr().out


def test_a_manifest_of_shards_in_a_bucket_is_kept_and_held_to(both: Both) -> None:
    manifest = f"{both.there.root}/shards.json"
    assert main(["manifest", f"{both.there.root}/shards/*.tar", "--output", manifest]) == 0
    words = both.there.options("classify", "promised", "--shard-manifest", manifest)
    at = words.index(f"{both.there.root}/shards/[rt]*")
    assert main(words[:at] + words[at + 1 :]) == 0
    shard = decisions(f"{both.there.root}/promised")["a [1].parquet"]
    assert shard == decisions(f"{both.here.root}/labels")["a [1].parquet"]


def test_a_table_in_a_bucket_is_evaluated(both: Both) -> None:
    place = both.there.root
    assert main(["evaluate", "--table", f"{place}/table", "--policy", f"{place}/policy"]) == 0


def test_a_damaged_file_in_a_bucket_is_found(both: Both, capsys: pytest.CaptureFixture) -> None:
    assert main(both.there.options("classify", "damaged")) == 0
    bucket.replace(f"{both.there.root}/damaged/rows.parquet", b"no Parquet")
    assert main(["verify", f"{both.there.root}/damaged"]) == 7
    assert "rows.parquet: 10 bytes, wanted" in capsys.readouterr().err


def test_a_killed_run_started_again_equals_an_undisturbed_one(
    both: Both, module_front: Front
) -> None:
    output = f"{both.there.root}/killed"
    for marker in ("killed/a [1].json", "killed/rows.json"):
        process = started(both.there.options("classify", "killed"))
        with module_front.held("killed", marker):
            module_front.wait()
            process.send_signal(signal.SIGKILL)
            assert ended(process)[0] == -signal.SIGKILL
        assert "killed/_manifest.json" not in files_below(both.there.root)
    run(both.there.options("classify", "killed"))
    assert decisions(output) == decisions(f"{both.here.root}/labels")
    assert main(["verify", output]) == 0


def test_of_two_runs_at_once_one_ends_and_names_the_other(both: Both, module_front: Front) -> None:
    first = started(both.there.options("classify", "shared"))
    with module_front.held("shared", "shared/rows.parquet"):
        module_front.wait()
        code, said = ended(started(both.there.options("classify", "shared")))
    assert code == 4, said
    assert "writes to this output; wait for its end" in said
    assert f".{first.pid}." in said
    code, said = ended(first)
    assert code == 0, said
    assert decisions(f"{both.there.root}/shared") == decisions(f"{both.here.root}/labels")
