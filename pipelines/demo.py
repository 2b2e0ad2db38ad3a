"""adalabel demo: the whole loop on real images that scikit-learn carries, without a network."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines import calibrate, classify, extract, fit
from pipelines.demo_data import SIDES, Digits, load_parts, write_networks, write_shards
from pipelines.options import CommandOptions
from pipelines.places import Runner
from policy.bundle import Bundle, read_bundle, write_bundle
from policy.errors import InputError
from policy.rules import always
from policy.table_manifest import read_manifest

_LOG = logging.getLogger("adalabel")

_MARK = "made-by-adalabel-demo"
ADAPTIVE = "adaptive"


@dataclass(frozen=True, kw_only=True)
class DemoOptions(CommandOptions):
    """Train three small networks on handwritten digits, fit a policy, label a corpus with it."""

    output: str = "adalabel-demo"
    """Folder for everything the demo writes; what an earlier demo left there is replaced."""
    max_loss: float = 0.01
    """Fraction of digits that the policy may get wrong where the large network is right."""
    seed: int = 0
    """Decides which digits train networks, fit the policy and make the corpus."""
    workers: int = 1
    """Worker processes of the local runner."""

    @property
    def runner(self) -> Runner:
        """Where its pipelines run."""
        return Runner("local", self.workers)


@dataclass(frozen=True)
class Line:
    """A network alone, or all of them routed: accuracy, cost and measured rate on the corpus."""

    name: str
    accuracy: float
    cost_ms: float
    images_per_second: float


@dataclass(frozen=True)
class DemoReceipt:
    """The table a newcomer reads, and where everything is."""

    lines: tuple[Line, ...]
    images: int
    exits: dict[str, int]
    max_loss: float
    files: dict[str, str]
    seconds: float

    def text(self) -> str:
        """For people."""
        dearest = max(line.cost_ms for line in self.lines)
        rows = [
            f"{self.images} handwritten digits that no network and no policy has seen before:",
            "",
            f"  {'':16} {'accuracy':>9} {'ms/image':>9} {'cheaper':>8} {'images/s':>9}",
        ]
        for line in self.lines:
            name = line.name if line.name == ADAPTIVE else f"{line.name} alone"
            rows.append(
                f"  {name:16} {line.accuracy:9.1%} {line.cost_ms:9.3f} "
                f"{dearest / line.cost_ms:7.1f}x {line.images_per_second:9.0f}"
            )
        exits = ", ".join(f"{count} by {name}" for name, count in self.exits.items())
        rows += [
            "",
            "  adaptive: every digit starts at a cheap network and goes on only where that pays;",
            f"  asked to lose at most {self.max_loss:.0%}. Labelled {exits}.",
            "  ms/image is the calibrated cost; images/s was measured while labelling.",
            "",
            *(f"  {what:9} {path}" for what, path in self.files.items()),
        ]
        return "\n".join([*rows, f"  took {self.seconds:.0f} s"])


def run(options: DemoOptions, beam_args: Sequence[str]) -> DemoReceipt:
    """Make data and networks, then calibrate, extract, fit and classify as a user would."""
    start = time.monotonic()
    root = _fresh_folder(options.output)
    parts = load_parts(options.seed)
    shards = {
        name: write_shards(root / "shards", name, parts[name]) for name in ("table", "corpus")
    }
    _LOG.info("training %s on %d digits", ", ".join(SIDES), len(parts["train"].keys))
    files = {
        "networks": str(write_networks(root / "networks", parts["train"], options.seed)),
        "corpus": shards["corpus"],
        "costs": str(root / "costs.json"),
        "table": str(root / "table"),
        "policy": str(root / "policies" / ADAPTIVE),
        "labels": str(root / "labels" / ADAPTIVE),
    }
    _fit(options, files, shards["table"], beam_args)
    _write_single_policies(root, files)
    receipts, lines = {}, []
    for name in (*SIDES, ADAPTIVE):
        receipts[name] = done = _classify(options, root, name, files, beam_args)
        accuracy = _accuracy(root / "labels" / name, parts["corpus"])
        lines.append(Line(name, accuracy, done.cost, done.images_per_second))
    return DemoReceipt(
        lines=tuple(lines),
        images=receipts[ADAPTIVE].records,
        exits=receipts[ADAPTIVE].exits,
        max_loss=options.max_loss,
        files=files,
        seconds=time.monotonic() - start,
    )


def _fit(
    options: DemoOptions, files: Mapping[str, str], shards: str, beam_args: Sequence[str]
) -> None:
    """Calibrate on the table's images, extract the table, fit the policy."""
    _LOG.info("calibrating")
    calibrate.run(
        calibrate.CalibrateOptions(
            networks=files["networks"], output=files["costs"], input=(shards,)
        )
    )
    extract.run(
        extract.ExtractOptions(
            networks=files["networks"],
            input=(shards,),
            output=files["table"],
            workers=options.workers,
        ),
        beam_args,
    )
    fit.run(
        fit.FitOptions(
            table=files["table"],
            policy=files["policy"],
            costs=files["costs"],
            max_loss=options.max_loss,
            choose_share=0.5,  # there are few digits, and the corpus is the test
            test_share=0.0,
        )
    )


def _classify(
    options: DemoOptions, root: Path, name: str, files: Mapping[str, str], beam_args: Sequence[str]
) -> classify.ClassifyReceipt:
    """Label the corpus with one of the policies."""
    return classify.run(
        classify.ClassifyOptions(
            networks=files["networks"],
            policy=str(root / "policies" / name),
            input=(files["corpus"],),
            output=str(root / "labels" / name),
            workers=options.workers,
        ),
        beam_args,
    )


def _fresh_folder(output: str) -> Path:
    """An empty folder; only what an earlier demo made is ever removed."""
    root = Path(output)
    if root.exists() and not (root / _MARK).exists() and any(root.iterdir()):
        raise InputError(f"{output}: exists and was not made by a demo; choose another --output")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / _MARK).write_text("adalabel demo may delete this folder\n")
    return root


def _write_single_policies(root: Path, files: Mapping[str, str]) -> None:
    """One policy for each network alone, to compare with."""
    bundle, manifest = read_bundle(files["policy"]), read_manifest(files["table"])
    for name in SIDES:
        fingerprints = {name: manifest.networks[name].fingerprint}
        policy = always(bundle.policy.graph, name)
        write_bundle(
            str(root / "policies" / name), Bundle(policy, bundle.class_names, fingerprints)
        )


def _accuracy(labels: Path, corpus: Digits) -> float:
    """Fraction of the corpus whose label is right; a missing label is a wrong one."""
    truth = dict(zip(corpus.keys, corpus.labels.tolist(), strict=True))
    right = [
        truth[row["key"].rpartition("/")[2]] == row["label"]
        for path in labels.glob("*.parquet")
        for row in pq.read_table(path, columns=["key", "label"]).to_pylist()
    ]
    return float(np.sum(right) / len(truth))
