"""A job that refits two tiny networks' policies, on labelled shards that arrive one by one."""

import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import tiny_images

from launch.runners import local
from pipelines import extract, fit, refit, refit_decision
from pipelines.held_out import held_out_keys
from pipelines.job import read_job
from pipelines.promote import Outcome, Wish, publish
from pipelines.refit import RefitOptions, RefitReceipt
from pipelines.registry import Registry, open_registry
from policy.bundle import Bundle, FittedOn, write_bundle
from policy.mixture import Routing
from policy.table import read_table

SHARDS = {"a": 150, "b": 150, "c": 300}
"""Their images; labelled as the big network does, but for one in ten."""

JOB = """
networks = "networks/networks.toml"
policies = "policies"
input    = ["corpus/*.tar"]
output   = "labels"
[run]
batch-size = 32
threads = 1
[refit]
input = ["{shards}/a.tar", "{shards}/b.tar"]
table = "table"
method = "dag"
max-loss = 0.3
confidence = 0.9
choose-share = 0.15
certify-share = 0.2
test-share = 0.3
"""


@dataclass(frozen=True)
class Lab:
    """A folder with a job and its networks; the shards are known by where they are, and stay."""

    folder: Path
    shards: Path

    @property
    def registry(self) -> Registry:
        return open_registry(str(self.folder / "policies"))

    @property
    def table(self) -> str:
        return str(self.folder / "table")

    def at(self, folder: Path) -> "Lab":
        """A copy that is free to be changed."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    def job(self, found: str = "", instead: str = "") -> RefitOptions:
        """The options of a refit; changes the job."""
        path = self.folder / "job.toml"
        text = path.read_text() if path.exists() else JOB.replace("{shards}", str(self.shards))
        path.write_text(text.replace(found, instead))
        return RefitOptions(job=str(path))

    def fit_options(self) -> Any:
        """The options of the fit of a refit."""
        wanted = read_job(self.job().job).refit
        assert wanted is not None
        return wanted.options("")

    def refit(self) -> RefitReceipt:
        return refit.run(RefitOptions(job=str(self.folder / "job.toml")), local(1))

    def arrive(self) -> None:
        """Let the shard c arrive."""
        self.job('b.tar"', f'b.tar", "{self.shards}/c.tar"')

    def put_into_use(self, bundle: Bundle) -> Outcome:
        """Make another policy CURRENT."""
        folder = str(self.folder / f"by-hand-{bundle.digest}")
        write_bundle(folder, bundle)
        return publish(self.registry, folder, Wish(force=True))

    def state(self) -> list[tuple[Any, ...]]:
        """What must not depend on how often a refit was killed."""
        return [
            (s.action, s.subject.number, s.subject.policy, s.current and s.current.number, s.why)
            for s in self.registry.history()
        ]


def with_policy(
    bundle: Bundle,
    policy: Callable[[Bundle], Routing] | None = None,
    seen: Sequence[str] | None = None,
) -> Bundle:
    """A bundle with another policy, or one that says to be fitted on these shards alone."""
    evidence = bundle.evidence
    assert evidence is not None
    assert evidence.fitted_on is not None
    if seen is not None:
        shards = {name: evidence.fitted_on.shards.get(name, "") for name in seen}
        evidence = replace(evidence, fitted_on=FittedOn(shards, "by hand"))
    return replace(bundle, policy=policy(bundle) if policy else bundle.policy, evidence=evidence)


def make_shards(folder: Path, networks: str) -> None:
    """The labelled shards; `networks` is the file of two networks, small and big."""
    rng = np.random.default_rng(0)
    for name, n in SHARDS.items():
        images = [tiny_images.tinted(rng) for _ in range(n)]
        tiny.write_tar(folder / f"{name}.tar", tiny_images.members(images, [None] * n))
    options = extract.ExtractOptions(
        networks=networks, input=(f"{folder}/*.tar",), output=f"{folder}/unlabelled", threads=1
    )
    extract.run(options, local(1))
    for name in SHARDS:
        rows = pq.read_table(f"{folder}/unlabelled/answers/big/{name}.parquet").to_pylist()
        with tarfile.open(folder / f"{name}.tar") as archive:
            files = [archive.extractfile(member) for member in archive]
            images = [file.read() for file in files if file is not None]
        noisy = [int(rng.integers(6)) if rng.random() < 0.1 else r["classes"][0] for r in rows]
        tiny.write_tar(folder / f"{name}.tar", tiny_images.members(images, noisy))
    shutil.rmtree(folder / "unlabelled")


class Seen:
    """The keys that each step of a fit was given, and those that policies were compared on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.fitted: set[str] = set()
        self.compared: set[str] = set()
        own_fit, own_heads, own_compare = fit.fit, fit.fit_exits, refit_decision.compare_on_new

        def fit_parts(parts: Any, *rest: Any) -> Any:
            for name in ("fit", "choose", "certify"):
                self.fitted |= set(parts[name].keys)
            return own_fit(parts, *rest)

        def fit_heads(folder: str, table: Any, rows: Any, seed: int) -> Any:
            self.fitted |= {table.keys[row] for row in rows}
            return own_heads(folder, table, rows, seed)

        def compare(bundles: Any, shards: Any, options: Any) -> Any:
            self.compared |= held_out_keys(read_table(options.table), shards, options)
            found = own_compare(bundles, shards, options)
            assert found.n == len(self.compared)
            return found

        patch.setattr(fit, "fit", fit_parts)
        patch.setattr(fit, "fit_exits", fit_heads)
        patch.setattr(refit_decision, "compare_on_new", compare)
