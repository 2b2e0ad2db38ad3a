"""A job whose nights tests can call: a corpus that grows, a registry, and its labels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tiny
import tiny_images

from launch.runners import preset
from pipelines import nightly, policy_publish

JOB = """
networks = "{networks}"
policies = "policies"
input    = ["corpus/*.tar"]
output   = "labels"
[run]
batch-size = 8
threads = 1
"""


@dataclass(frozen=True)
class Nights:
    """The folder of a job, with its corpus, registry and labels."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "labels"

    def write_job(self, networks: str, more: str = "") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "job.toml").write_text(JOB.format(networks=networks) + more)

    def publish(self, policy: str, *, force: bool = True) -> policy_publish.PublishReceipt:
        options = policy_publish.PublishOptions(
            registry=str(self.folder / "policies"), policy=policy, force=force
        )
        return policy_publish.run(options)

    def shard(self, name: str, images: list[bytes]) -> Path:
        """Write a shard of these images, or write it anew."""
        path = self.folder / "corpus" / f"{name}.tar"
        return tiny.write_tar(path, tiny_images.members(images, [None] * len(images)))

    def night(self) -> nightly.NightlyReceipt:
        options = nightly.NightlyOptions(job=str(self.folder / "job.toml"))
        return nightly.run(options, preset(options.runner))

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.output / "_manifest.json").read_text())
        return found

    def rows(self) -> list[dict[str, Any]]:
        """All current labels, read as docs/nights.md says."""
        files = self.manifest()["files"].items()
        paths = [file["at"] or name for name, file in files if name.endswith(".parquet")]
        return [row for path in paths for row in pq.read_table(self.output / path).to_pylist()]

    def log(self) -> list[str]:
        return (self.output / "_nights.log").read_text().splitlines()
