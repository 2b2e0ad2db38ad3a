"""What is labelled in every place: handwritten digits, small networks, and a policy for them."""

import io
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tiny
from local_cluster import Cluster
from PIL import Image
from processes import ROOT, end_with_parent, stop, until

from launch.runners import local
from pipelines import classify, extract, fit
from pipelines.demo_data import Digits, load_parts, write_networks

SHARDS, RECORDS = 20, 25
FOLDER = Path(__file__).parent

Decision = tuple[str, int | None, tuple[str, ...] | None, str]
"""The key, label, trail and status of one record."""


@dataclass(frozen=True)
class World:
    """Where everything lies, and what the local runner makes of it."""

    folder: Path
    networks: str
    input: str
    policy: str
    table: Path
    labelled: dict[str, Decision]

    def command(self, name: str, output: Path, on: str, beam: Sequence[str]) -> list[str]:
        """A command of adalabel that runs on two workers."""
        policy = ["--policy", self.policy] if name == "classify" else []
        return [
            *(sys.executable, "-m", "launch.cli", name, "--networks", self.networks, *policy),
            *("--input", self.input, "--output", str(output), "--batch-size", "4"),
            *("--on", on, "--workers", "2", "--", *beam),
        ]

    def run(
        self, name: str, output: Path, on: str, beam: Sequence[str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end; says what it said if it fails."""
        command = self.command(name, output, on, beam)
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        sys.stderr.write(done.stderr)
        return done

    def started(
        self, cluster: Cluster, output: Path, server: Sequence[str] = ()
    ) -> "subprocess.Popen[str]":
        """A run of classify on a cluster that has labelled some shards and not all.

        `server` are the flags of the job server, if not of one that the run starts.
        """
        beam = [*(server or cluster.flags), *cluster.external]
        command = self.command("classify", output, cluster.name, beam)
        run = subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509
        )

        def ended() -> bool:
            return run.poll() is not None

        try:
            until("the first labels", lambda: list(output.glob("corpus*.json")) or ended())
        except TimeoutError:
            stop(run)  # by SIGTERM, or its job and its job server would go on
            raise
        return run


def decisions(output: Path) -> dict[str, Decision]:
    """What must not depend on where it was decided; fails if a record is there twice."""
    rows = [row for path in output.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    keys = Counter(row["key"] for row in rows)
    assert max(keys.values()) == 1
    return {
        row["key"]: (
            row["key"],
            row["label"],
            None if row["trail"] is None else tuple(row["trail"]),
            row["status"],
        )
        for row in rows
    }


def answers(table: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file of a table's answers."""
    return {
        str(path.relative_to(table)): pq.read_table(path).to_pylist()
        for path in sorted(table.glob("answers/*/*.parquet"))
    }


def make_world(folder: Path) -> World:
    """Twenty shards of digits, one of them broken; a policy that leaves networks early."""
    parts = load_parts(seed=0)
    networks = write_networks(folder / "networks", parts["train"].take(np.arange(150)), seed=0)
    text = networks.read_text().replace("pipelines.demo_networks:large", "slow_networks:large")
    networks.write_text(f'import_path = ["{FOLDER}"]\n{text}')
    write_shards(folder, "table", parts["table"], shards=8)
    write_shards(folder, "corpus", parts["corpus"], shards=SHARDS)
    table, policy, labels = (folder / name for name in ("table", "policy", "labels"))
    extract.run(
        extract.ExtractOptions(
            networks=str(networks), input=(str(folder / "table-*.tar"),), output=str(table)
        ),
        local(1),
    )
    fit.run(
        fit.FitOptions(
            table=str(table), policy=str(policy), max_loss=0.1, choose_share=0.5, test_share=0.0
        )
    )
    world = World(folder, str(networks), str(folder / "corpus-*.tar"), str(policy), table, {})
    labelled = label_here(world, labels)
    assert len(labelled) == SHARDS * RECORDS
    assert len({trail for _, _, trail, _ in labelled.values()}) > 2
    assert Counter(status for *_, status in labelled.values()) == {
        "ok": SHARDS * RECORDS - 1,
        "decode": 1,
    }
    return replace(world, labelled=labelled)


def label_here(world: World, output: Path) -> dict[str, Decision]:
    """What the local runner makes of what is not labelled yet, with what was."""
    options = classify.ClassifyOptions(
        networks=world.networks,
        policy=world.policy,
        input=(world.input,),
        output=str(output),
        batch_size=4,
    )
    classify.run(options, local(1))
    return decisions(output)


def png(pixels: np.ndarray) -> bytes:
    """The bytes of an image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_shards(folder: Path, name: str, digits: Digits, shards: int) -> None:
    """Shards of `RECORDS` digits each; the first image of the first corpus shard is broken."""
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for row in range(shard * RECORDS, (shard + 1) * RECORDS):
            image = png(digits.images[row])
            is_broken = name == "corpus" and row == 0
            members.append((f"{digits.keys[row]}.png", b"no image" if is_broken else image))
            members.append((f"{digits.keys[row]}.cls", str(digits.labels[row]).encode()))
        tiny.write_tar(folder / f"{name}-{shard:03d}.tar", members)
