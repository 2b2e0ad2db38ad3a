import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_tables
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from policy.errors import InputError
from policy.exits import with_exits
from policy.features import Feature
from policy.heads import Head
from policy.rules import STOP, Policy, Rule
from policy.schema import to_json
from policy.simulate import simulate
from policy.table import Table, read_table
from policy.table_manifest import MANIFEST, TableManifest, TableNetwork
from transforms import fit_heads, mini_batches
from transforms.commit import Output
from transforms.extract import ExtractStep, TableOptions
from transforms.fit_heads import fit_exits, fit_head
from transforms.mini_batches import Batch, Stream
from transforms.networks_file import NetworksFile, read_networks
from transforms.prepare import prepare
from transforms.route import Router
from transforms.shard_loop import ShardLoop
from transforms.shards import Shard, read_records
from transforms.stages import Engine


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short rounds, where it is not the last half point that is tested."""
    monkeypatch.setattr(fit_heads, "_LEAST_STEPS", 20)


def clouds(rng: np.random.Generator, n: int, classes: int = 5, width: int = 12) -> Batch:
    """Overlapping clouds of correlated features of very different sizes, one for each class."""
    labels = rng.integers(0, classes, n).astype(np.int32)
    fixed = np.random.default_rng(99)
    centres = fixed.normal(size=(classes, width))
    mixing = fixed.normal(size=(width, width)) * np.logspace(-1, 1, width)[:, None]
    x = (centres[labels] + 1.2 * rng.normal(size=(n, width))) @ mixing + 5
    return labels, x.astype(np.float16)


def part(batch: Batch, rows: slice | NDArray[np.intp]) -> Batch:
    return batch[0][rows], batch[1][rows]


def stream_of(batch: Batch, at_once: int = 300) -> Stream:
    def stream(rng: np.random.Generator) -> Iterator[Batch]:
        starts = np.arange(0, len(batch[0]), at_once)
        for start in rng.permutation(starts):
            yield part(batch, slice(start, start + at_once))

    return stream


def probabilities(head: Head, features: NDArray[np.float16]) -> NDArray[np.float64]:
    logits = (features.astype(np.float32) @ head.weight.T + head.bias).astype(np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return found


def accuracy(head: Head, batch: Batch) -> float:
    return float((probabilities(head, batch[1]).argmax(axis=1) == batch[0]).mean())


TRAINING, OTHER = (clouds(np.random.default_rng(seed), n) for seed, n in ((1, 4000), (2, 4000)))
FITTED, HELD = part(TRAINING, slice(400, None)), part(TRAINING, slice(400))


@pytest.fixture(scope="module")
def head() -> Head:
    return fit_head(stream_of(FITTED), HELD, 5, seed=0)


def test_a_head_is_as_good_as_scikit_learns_logistic_regression(head: Head) -> None:
    mean, std = TRAINING[1].mean(axis=0, dtype=float), TRAINING[1].std(axis=0, dtype=float)
    theirs = LogisticRegression(max_iter=1000).fit((TRAINING[1] - mean) / std, TRAINING[0])
    said = theirs.predict_proba((OTHER[1] - mean) / std)
    assert accuracy(head, OTHER) > 0.7
    assert accuracy(head, OTHER) > (said.argmax(axis=1) == OTHER[0]).mean() - 0.005
    ours = probabilities(head, OTHER[1])
    assert log_loss(OTHER[0], ours) < log_loss(OTHER[0], said) + 0.01


@pytest.mark.usefixtures("_quick")
def test_the_same_seed_gives_the_same_head() -> None:
    one, same, other = (fit_head(stream_of(FITTED), HELD, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.weight, same.weight)
    np.testing.assert_array_equal(one.bias, same.bias)
    assert not np.array_equal(one.weight, other.weight)


def by_class(batch: Batch) -> Batch:
    return part(batch, np.argsort(batch[0], kind="stable"))


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("batch", [FITTED, by_class(FITTED)], ids=["mixed", "by class"])
def test_a_stream_larger_than_the_buffer_gives_as_good_a_head(
    head: Head, monkeypatch: pytest.MonkeyPatch, batch: Batch
) -> None:
    monkeypatch.setattr(mini_batches, "BUFFER_BYTES", 2 * 12 * 1500)
    streamed = fit_head(stream_of(batch), HELD, 5, seed=0)
    assert accuracy(streamed, OTHER) > accuracy(head, OTHER) - 0.01


def test_every_streamed_row_is_drawn_about_once_a_pass() -> None:
    n, passes = 3000, 20
    features = np.arange(n, dtype=np.uint16).view(np.float16)[:, None]  # each row its own bits
    labels = np.arange(n, dtype=np.int32)
    drawn = mini_batches._streamed(stream_of((labels, features)), 1100, 1, np.random.default_rng(0))
    seen = list(islice(drawn, passes * n // 512))
    for some, x in seen:
        assert len(some) == 512
        np.testing.assert_array_equal(x[:, 0].view(np.uint16), some)
    counts = np.bincount(np.concatenate([some for some, _ in seen]), minlength=n)
    assert abs(counts.mean() - passes) < 1
    assert counts.min() >= passes - 6
    assert counts.max() <= passes + 6


def test_mini_batches_of_a_small_stream_are_whole_passes_in_new_order() -> None:
    rows = (np.arange(3600, dtype=np.int32), FITTED[1])
    batches = mini_batches.mini_batches(stream_of(rows), 3600, 12, np.random.default_rng(0))
    first, second = ([labels for labels, _ in islice(batches, 8)] for _ in range(2))
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second)) == list(range(3600))
    assert first[0].tolist() != second[0].tolist()


def test_moments_are_those_of_all_rows_at_once() -> None:
    moments = fit_heads._measured(stream_of(FITTED)(np.random.default_rng(0)), 7)
    assert moments.n == 3600
    np.testing.assert_allclose(moments.mean, FITTED[1].mean(axis=0, dtype=float), rtol=1e-5)
    wanted = np.cov(FITTED[1].astype(float), rowvar=False, bias=True)
    np.testing.assert_allclose(moments.covariance, wanted, atol=1e-4 * wanted.max())
    assert moments.counts.tolist() == [*np.bincount(FITTED[0]), 0, 0]


@pytest.mark.usefixtures("_quick")
def test_a_class_without_a_row_is_hardly_ever_answered() -> None:
    head = fit_head(stream_of(FITTED), HELD, 8, seed=0)
    said = probabilities(head, OTHER[1])
    assert said[:, 5:].max() < 0.01
    assert accuracy(head, OTHER) > 0.7


@pytest.mark.usefixtures("_quick")
def test_a_feature_that_never_changes_counts_for_nothing() -> None:
    def with_constant(batch: Batch) -> Batch:
        return batch[0], np.insert(batch[1], 3, np.float16(7), axis=1)

    head = fit_head(stream_of(with_constant(FITTED)), with_constant(HELD), 5, seed=0)
    assert abs(head.weight[:, 3]).max() < 0.01
    assert accuracy(head, with_constant(OTHER)) > 0.7


@pytest.mark.usefixtures("_quick")
def test_features_that_are_all_the_same_give_the_shares_of_the_classes() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), (600, 300, 100))
    same = labels, np.ones((1000, 2), dtype=np.float16)
    head = fit_head(stream_of(same), same, 3, seed=0)
    said = probabilities(head, same[1][:1])[0]
    np.testing.assert_allclose(said, (0.6, 0.3, 0.1), atol=0.01)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Table]:
    folder = tmp_path_factory.mktemp("table")
    tiny_tables.write(folder, shards={"a": 300, "b": 200})
    return str(folder), read_table(str(folder))


@pytest.mark.usefixtures("_quick")
def test_every_stage_with_features_gets_a_head_that_tells_classes_apart(
    tables: tuple[str, Table],
) -> None:
    folder, table = tables
    half = np.random.default_rng(0).permutation(len(table.keys))
    heads = fit_exits(folder, table, half[:300], seed=0)
    assert list(heads) == ["small.block1.exit", "small.block2.exit", "big.block1.exit"]
    others = with_exits(folder, table, heads, 5).take(half[300:])
    for name in heads:
        right = others.outputs[name].classes[:, 0] == others.labels
        assert right.mean() > 0.7, name


def test_rows_held_out_are_neither_trained_on_nor_others(
    tables: tuple[str, Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = tables
    calls: list[tuple[Stream, Batch]] = []

    def watch(stream: Stream, held_out: Batch, classes: int, seed: int) -> Head:
        del classes, seed
        calls.append((stream, held_out))
        return Head(np.zeros((4, 1), np.float32), np.zeros(4, np.float32))

    monkeypatch.setattr(fit_heads, "fit_head", watch)
    rows = np.arange(100, 350)
    fit_exits(folder, table, rows, seed=3)
    wanted = {x.tobytes() for x in tiny_tables.write(Path(folder), shards={"a": 300, "b": 200})[
        "small.block2"
    ][rows]}  # fmt: skip
    stream, held = calls[1]
    trained = [x.tobytes() for _, some in stream(np.random.default_rng(0)) for x in some]
    stopped = [x.tobytes() for x in held[1]]
    assert (len(trained), len(stopped)) == (225, 25)
    assert {*trained, *stopped} == wanted
    assert not set(trained) & set(stopped)


def test_too_few_rows_are_refused(tables: tuple[str, Table]) -> None:
    folder, table = tables
    with pytest.raises(InputError, match="19 rows to fit exits' heads on; wanted at least 20"):
        fit_exits(folder, table, np.arange(19), seed=0)


NETWORKS = {
    "small": TableNetwork("", ("small",), ("small.block1",)),
    "big": TableNetwork("", ("big",)),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> NetworksFile:
    return read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    """Noisy images of one colour for each class, some much paler than others."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(0, 255, (4, 3))
    members = []
    for number in range(120):
        pale = rng.uniform(0, 1)
        pixels = (1 - pale) * colours[number % 4] + pale * rng.uniform(0, 255, (20, 20, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        members.append((f"{number:04d}.cls", str(number % 4).encode()))
        members.append((f"{number:04d}.png", buffer.getvalue()))
    path = tmp_path_factory.mktemp("shards") / "a.tar"
    return tiny.shard("a", tiny.write_tar(path, members))


@pytest.fixture(scope="module")
def extracted(
    networks: NetworksFile, shard: Shard, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A table of 120 images, as the extract command leaves it."""
    folder, engine = str(tmp_path_factory.mktemp("extracted")), Engine(networks, "cpu")
    with ThreadPoolExecutor(1) as pool:
        made_by = {name: {"fingerprint": made} for name, made in engine.fingerprints.items()}
        options = TableOptions(Output(folder, "run"), None, made_by)
        loop = ShardLoop(ExtractStep(engine, options, 16), pool, depth=8)
        assert len([*loop.process(shard), *loop.finish()]) == 1
    made = TableManifest(1, engine.graph, engine.class_names, None, NETWORKS, {"a": 120})
    (Path(folder) / MANIFEST).write_text(to_json(made))
    return folder


@pytest.fixture(scope="module")
def fitted(extracted: str) -> tuple[Table, dict[str, Head]]:
    """The table with the exit whose head was fitted on half of it, and the head."""
    table = read_table(extracted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_heads, "_LEAST_STEPS", 20)
        heads = fit_exits(extracted, table, np.arange(0, 120, 2), seed=0)
    return with_exits(extracted, table, heads, 5), heads


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_fitted_exit_is_routed_as_simulated(
    networks: NetworksFile,
    shard: Shard,
    fitted: tuple[Table, dict[str, Head]],
    batch_size: int,
) -> None:
    table, heads = fitted
    assert list(heads) == ["small.block1.exit"]
    engine = Engine(networks, "cpu", heads)
    assert set(table.graph.stages) == set(engine.graph.stages)
    policy = exit_policy(table)
    routes = simulate(policy, table.outputs)
    wanted = routes.answers(table.outputs, 2).classes[:, 0]
    images = [
        prepare("a", row, record, engine.inputs) for row, record in enumerate(read_records(shard))
    ]
    with ThreadPoolExecutor(1) as pool:
        router = Router(policy, engine, batch_size, 2, pool)
        groups = [*(group for item in images for group in router.feed(item)), *router.flush()]
    seen = set()
    for group in groups:
        for item, classes in zip(group.items, group.answers.classes, strict=True):
            assert group.trail == routes.trails[routes.trail_of[item.row]]
            assert group.cost == pytest.approx(routes.cost[item.row])
            assert classes[0] == wanted[item.row]
            seen.add((item.row, group.trail))
    assert len(seen) == 120
    assert len({trail for _, trail in seen}) == 3


def exit_policy(table: Table) -> Policy:
    """Stop at the exit, go on, or jump to the other network, with cuts far from every image."""
    sure = np.sort(table.outputs["small.block1.exit"].probabilities[:, 0])
    low, high = (gap(sure[start : start + 20]) for start in (30, 70))
    rule = Rule(
        "small.block1.exit",
        (STOP, "small", "big"),
        weights=((1.0,), (0.0,), (-1.0,)),
        bias=(-high, 0.0, low),
        features=(Feature("small.block1.exit", "max_probability"),),
    )
    return Policy(table.graph, "small.block1.exit", (rule,))


def gap(values: NDArray[np.float32]) -> float:
    """The middle of the widest gap between sorted values."""
    widest = int(np.argmax(np.diff(values)))
    return float(values[widest] + values[widest + 1]) / 2


MEASURE = """
import sys
import numpy as np
import torch
import tiny_tables
from policy.table import read_table
from transforms import fit_heads, mini_batches
torch.set_num_threads(1)
fit_heads._MOST_ROUNDS, fit_heads._LEARNING_RATES = 1, (0.01,)
fit_heads._MOST_HELD_OUT = 500
table = read_table(sys.argv[1])
mini_batches.BUFFER_BYTES = 4 << 20

def peak():  # not ru_maxrss, which begins with that of the process which started this one
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM"))

before = peak()
fit_heads.fit_exits(sys.argv[1], table, np.arange(len(table.keys)), 0)
after = peak()
sys.stdout.write(str((after - before) / 1024))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_tables, "WIDTHS", dict.fromkeys(tiny_tables.WIDTHS, 256))
    peaks = []
    for shards in (4, 28):  # 4 and 29 MB of features for each of three stages
        folder = tmp_path / str(shards)
        tiny_tables.write(folder, shards={f"s{i}": 2000 for i in range(shards)})
        command = [sys.executable, "-c", MEASURE, str(folder)]
        environment = {"PYTHONPATH": f"{tiny.FOLDER}:{tiny.FOLDER.parent}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 12, peaks
