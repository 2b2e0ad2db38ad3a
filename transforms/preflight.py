"""A preflight on a worker: everything is tried in turn, and the launcher is told what was found."""

import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import apache_beam as beam

from policy.bundle import Bundle
from policy.errors import InputError
from policy.schema import to_json
from transforms.findings import Finding, Report, found, told_by
from transforms.networks_file import NetworksFile
from transforms.output_probe import (
    WORKER,
    Probe,
    missing_folders,
    remove,
    sees_launcher,
    try_writing,
)
from transforms.preflight_checks import (
    first_record,
    fits,
    gpu,
    run_network,
    same_versions,
    torch_imports,
)
from transforms.shards import Shard
from transforms.work import WorkerOptions

SHARED = (
    "give an --output that the launcher and every worker see under the same name: gs://, or a "
    "folder of shared storage that is mounted in the workers' containers, too"
)
WRITABLE = "give the user that runs there the right to write below --output, and room on its disk"


@dataclass(frozen=True)
class Wanted:
    """What to try; None for what is not at hand. `versions` are the launcher's, by package.

    `begun`: whether the launcher could write its own side of the probe.
    """

    versions: Mapping[str, str]
    worker: WorkerOptions
    probe: Probe
    begun: bool = True
    networks: NetworksFile | None = None
    bundle: Bundle | None = None
    shard: Shard | None = None


def worker_findings(wanted: Wanted) -> Iterator[Finding]:
    """Everything but the output, one check after the other; a failed one stops no other."""
    yield found(
        "versions",
        lambda: same_versions(wanted.versions),
        "install the launcher's versions in the worker's image: pip install -r requirements.lock",
    )
    torch = found("torch", torch_imports, "install torch and torchvision in the worker's image")
    yield torch
    if torch.ok:
        yield from _torch_findings(wanted)
    if wanted.shard is not None:
        shard = wanted.shard
        yield found(
            "input",
            lambda: first_record(shard),
            "the workers read shards themselves: give an --input that they can see and may read",
        )


def _torch_findings(wanted: Wanted) -> Iterator[Finding]:
    worker = wanted.worker
    if worker.device != "cpu":
        found_gpu = found("gpu", lambda: gpu(worker.device), "give workers a GPU, or --device cpu")
        yield found_gpu
        if not found_gpu.ok:
            worker = replace(worker, device="cpu")  # weights and imports can be tried all the same
    networks, bundle = wanted.networks, wanted.bundle
    if networks is None:
        return
    for network in networks.network:
        name = network.name
        yield found(
            f"network {name}",
            lambda name=name: run_network(networks, name, worker),  # type: ignore[misc]
            "the worker imports factories and reads weights itself: put both where it sees them, "
            "in its image under the same path, or weights in gs://",
        )
    if bundle is not None:
        yield found(
            "policy",
            lambda: fits(networks, bundle, worker),
            "use the networks file that the policy was fitted with, or fit again",
        )


def probe_output(wanted: Wanted, host: str) -> Report:
    """All of a worker's findings, written where the launcher looks for them.

    Raises Told, with the report in its text, where that is in vain. Then nothing of ours stays.
    """
    findings, probe = list(worker_findings(wanted)), wanted.probe
    made, shared = missing_folders(probe.root), False
    if wanted.begun:
        look = found("output is shared", lambda: _look(probe, host), SHARED)
        findings.append(look)
        shared = look.ok
    written, clock = tried(probe)
    report = Report(host, (*findings, written), clock)
    if shared and found("report", lambda: _reported(probe, report), WRITABLE).ok:
        return report
    if not shared:
        found("removal", lambda: remove(probe, made), WRITABLE)
    raise told_by(report)


def _look(probe: Probe, host: str) -> str:
    if not sees_launcher(probe):
        raise InputError(
            f"{probe.root} of worker {host} is not {probe.root} of the launcher: what the launcher "
            "wrote there is not there for the worker, which would write labels to a disk of its "
            "own, where they are lost"
        )
    return f"worker {host} sees what the launcher wrote"


def tried(probe: Probe) -> tuple[Finding, float | None]:
    """Whether the output can be written here, and our clock less its own, in seconds."""
    clocks: list[float | None] = []

    def work() -> str:
        said, clock = try_writing(probe)
        clocks.append(clock)
        return said

    return found("output", work, WRITABLE), clocks[0] if clocks else None


def _reported(probe: Probe, report: Report) -> str:
    name = f"{WORKER}{secrets.token_hex(8)}"
    probe.output.create(name, to_json(report).encode())
    return name


class PreflightFn(beam.DoFn):
    """Wanted -> the name of the worker's host (str); the report goes to the output."""

    def process(self, wanted: Wanted) -> Iterator[str]:
        """Try everything."""
        yield probe_output(wanted, socket.gethostname()).host


@dataclass
class Preflight(beam.PTransform[beam.pvalue.PBegin, beam.pvalue.PCollection[str]]):
    """Nothing -> PCollection[str], the host of the worker that tried everything."""

    wanted: Wanted

    def expand(self, begin: beam.pvalue.PBegin) -> beam.pvalue.PCollection[str]:
        """One element, on whatever worker gets it."""
        done: beam.pvalue.PCollection[str] = (
            begin
            | "Wanted" >> beam.Create([self.wanted])
            | "Spread" >> beam.Reshuffle()
            | "Preflight" >> beam.ParDo(PreflightFn())
        )
        return done
