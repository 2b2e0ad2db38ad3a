"""Three small shards, two tiny networks, their table and a policy, made once for all commands."""

import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import tiny_images
import tiny_networks
import tiny_refits
import torch
from safetensors.torch import save_file

from launch.runners import local
from pipelines import classify, evaluate, extract, fit
from pipelines.refit import RefitReceipt
from policy.rows import OK
from policy.rules import always

CLASSES = 6
NETWORKS = {"small": (4, 16), "big": (8, 24)}  # channels, side of the input

_NETWORK = """
[[network]]
name    = "{name}"
model   = "tiny_networks:branchy"
kwargs  = {{ classes = 6, width = {width} }}
weights = "{name}.safetensors"
input   = {{ resize = [{side}, {side}], mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2] }}
exits   = {exits}
"""


@dataclass(frozen=True)
class World:
    """Where everything lies, and the commands with options that suit it."""

    folder: Path
    networks: str
    input: str
    table: str
    policy: str

    def at(self, folder: Path) -> "World":
        """A copy of everything but the shards and networks, free to be changed."""
        for name in ("table", "policy"):
            if Path(getattr(self, name)).exists():
                shutil.copytree(getattr(self, name), folder / name)
        return replace(self, table=str(folder / "table"), policy=str(folder / "policy"))

    def extract(self, **changes: Any) -> extract.ExtractReceipt:
        options = {
            "networks": self.networks,
            "input": (self.input,),
            "output": self.table,
            "batch_size": 16,
            "threads": 1,
        }
        return extract.run(extract.ExtractOptions(**(options | changes)), local(1))

    def fit(self, **changes: Any) -> fit.FitReceipt:
        options = {
            "table": self.table,
            "policy": self.policy,
            "choose_share": 0.5,
            "test_share": 0.0,
            "no_exits": True,
        }
        if changes.keys().isdisjoint({"max_loss", "budget"}):
            options["max_loss"] = 0.12
        return fit.run(fit.FitOptions(**(options | changes)))

    def classify(self, output: Path | str, **changes: Any) -> classify.ClassifyReceipt:
        options = {
            "networks": self.networks,
            "policy": self.policy,
            "input": (self.input,),
            "output": str(output),
            "batch_size": 16,
            "threads": 1,
        }
        return classify.run(classify.ClassifyOptions(**(options | changes)), local(1))

    def evaluate(self, **changes: Any) -> evaluate.EvaluateReceipt:
        options = {"table": self.table, "policy": self.policy}
        return evaluate.run(evaluate.EvaluateOptions(**(options | changes)))

    def networks_file(self, folder: Path, names: Sequence[str] = (), seed: int = 0) -> str:
        """A networks file with these of the networks; another seed gives them other weights."""
        return write_networks(folder, names or tuple(NETWORKS), seed)


def write_networks(folder: Path, names: Sequence[str], seed: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("ant\nbee\ncat\ndog\nelk\nfox\n")
    text = f'classes = "classes.txt"\nimport_path = ["{tiny.FOLDER}"]\ndecode_side = 24\n'
    for name in names:
        width, side = NETWORKS[name]
        torch.manual_seed(seed)
        network = tiny_networks.branchy(CLASSES, width)
        for parameter in network.parameters():
            parameter.data.mul_(2)  # far from uniform, so that confidences differ
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        exits = '["block1"]' if name == "small" else "[]"
        text += _NETWORK.format(name=name, width=width, side=side, exits=exits)
    (folder / "networks.toml").write_text(text)
    return str(folder / "networks.toml")


def label_shards(folder: Path, table: str, rng: np.random.Generator) -> None:
    """Label the images of s0, s1 and s2 as the big network does, but for one in ten."""
    for shard in ("s0", "s1", "s2"):
        rows = pq.read_table(f"{table}/answers/big/{shard}.parquet").to_pylist()
        labels = [row["classes"][0] if row["status"] == OK else 0 for row in rows]
        noisy = [int(rng.integers(CLASSES)) if rng.random() < 0.1 else y for y in labels]
        with tarfile.open(folder / f"{shard}.tar") as archive:
            images = [archive.extractfile(member).read() for member in archive]
        tiny.write_tar(folder / f"{shard}.tar", tiny_images.members(images, noisy))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shards s0, s1, s2 of 42 images, one of s1 broken; a table and a policy. Not to be changed."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    made = World(
        folder,
        write_networks(folder, tuple(NETWORKS), 0),
        str(folder / "*.tar"),
        str(folder / "table"),
        str(folder / "policy"),
    )
    for shard in ("s0", "s1", "s2"):
        images = [tiny_images.tinted(rng) for _ in range(42)]
        images[7] = b"no image" if shard == "s1" else images[7]
        tiny.write_tar(folder / f"{shard}.tar", tiny_images.members(images, [None] * 42))
    made.extract(output=str(folder / "unlabelled"))
    label_shards(folder, str(folder / "unlabelled"), rng)
    made.extract()
    made.fit()
    return made


@pytest.fixture(scope="session")
def first(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tiny_refits.Lab, RefitReceipt]:
    """The first refit of a job, on the shards a and b. Not to be changed."""
    shards, folder = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("refit") / "lab"
    tiny_refits.make_shards(shards, world.networks_file(folder / "networks"))
    lab = tiny_refits.Lab(folder, shards)
    lab.job()
    return lab, lab.refit()


@pytest.fixture(scope="session")
def second(
    first: tuple[tiny_refits.Lab, RefitReceipt], tmp_path_factory: pytest.TempPathFactory
) -> tuple[tiny_refits.Lab, RefitReceipt, tiny_refits.Seen]:
    """The shard c arrives, and the policy in use, fitted on a and b, is needlessly dear."""
    lab = first[0].at(tmp_path_factory.mktemp("second") / "lab")
    own = lab.registry.read(lab.registry.versions()[0])
    dear = tiny_refits.with_policy(own, lambda bundle: always(bundle.policy.graph, "big"))
    lab.put_into_use(dear)
    lab.arrive()
    with pytest.MonkeyPatch.context() as patch:
        seen = tiny_refits.Seen(patch)
        return lab, lab.refit(), seen
