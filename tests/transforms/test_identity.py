"""Whatever lies in the shards: seen = labelled + rejected by reason + duplicates, row by row."""

import io
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_routing import Counting

from pipelines.accounting import account_for
from policy.rules import Policy
from transforms.commit import Output
from transforms.extract import ExtractStep, TableOptions
from transforms.label_rows import LabelStep
from transforms.route import Router
from transforms.shard_loop import ShardLoop
from transforms.shards import Shard, count_records

RNG = np.random.default_rng(0)
GOOD, WIDE = tiny.image_bytes(RNG), tiny.image_bytes(RNG, (1, 300))

MEMBERS = {
    "ok": [(".png", GOOD)],
    "labelled": [(".cls", b"1"), (".png", GOOD)],
    "decode": [(".jpg", GOOD[:50])],
    "empty": [(".png", b"")],
    "too_large": [(".png", WIDE)],
    "no_image": [(".cls", b"1")],
    "ambiguous": [(".jpg", GOOD), (".png", GOOD)],
    "duplicate": [(".png", GOOD)],
}
"""The members of a record with this status; "labelled" is ok, "duplicate" has the first key."""

shards = st.lists(
    st.tuples(
        st.lists(st.sampled_from(sorted(MEMBERS)), max_size=12),
        st.none() | st.floats(0, 1),  # where the shard is cut off, as a share of its length
    ),
    min_size=1,
    max_size=4,
)


def tar_of(kinds: list[str], cut: float | None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, kind in enumerate(kinds):
            key = "000" if kind == "duplicate" else f"{number + 1:03d}"
            for extension, content in MEMBERS[kind]:
                info = tarfile.TarInfo(key + extension)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    content = buffer.getvalue()
    return content if cut is None else content[: int(cut * len(content))]


def wanted(kinds: list[str]) -> Counter[str]:
    """The statuses of a whole shard; of several with the first key, one is labelled."""
    found = Counter("ok" if kind == "labelled" else kind for kind in kinds)
    if found["duplicate"]:
        found["duplicate"] -= 1
        found["ok"] += 1
    return +found


def run(step: Any, written: list[Shard], depth: int) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(2) as pool:
        loop = ShardLoop(step, pool, depth)
        return [s for shard in written for s in loop.process(shard)] + list(loop.finish())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=shards, batch_size=st.integers(1, 9), depth=st.integers(0, 20))
@pytest.mark.parametrize("what", ["labels", "table"])
def test_every_record_is_accounted_for(  # noqa: PLR0913, PLR0917 - fixtures and what is drawn
    counting: Counting,
    policy: Policy,
    tmp_path_factory: pytest.TempPathFactory,
    what: str,
    contents: list[tuple[list[str], float | None]],
    batch_size: int,
    depth: int,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    written = []
    for number, (kinds, cut) in enumerate(contents):
        (folder / f"{number}.tar").write_bytes(tar_of(kinds, cut))
        written.append(tiny.shard(str(number), folder / f"{number}.tar"))
    output = Output(str(folder / "out"), "run")
    with ThreadPoolExecutor(1) as pool:
        if what == "labels":
            step: Any = LabelStep(Router(policy, counting, batch_size, 2, pool), output, {})
            path = "{}.parquet"
        else:
            options = TableOptions(output, None, {name: {} for name in counting.trunks})
            step, path = ExtractStep(counting, options, batch_size), "answers/big/{}.parquet"
        statistics = run(step, written, depth)
    account = account_for(statistics, {shard.name: count_records(shard) for shard in written})
    assert account.unaccounted == 0
    assert account.seen == account.labelled + sum(account.rejected.values()) + account.duplicates
    for shard, (kinds, cut) in zip(written, contents, strict=True):
        rows = pq.read_table(Path(output.root) / path.format(shard.name)).to_pylist()
        assert len(rows) == count_records(shard)
        good = [row["key"] for row in rows if row["status"] == "ok"]
        assert len(set(good)) == len(good)
        assert all((row["status"] == "ok") == (row["error"] is None) for row in rows)
        if cut is None:
            assert Counter(row["status"] for row in rows) == wanted(kinds)
