"""The launcher's side of a preflight: its own checks, one small job, and what came of it."""

import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.bounded import Teller
from pipelines.policy_source import read_policy
from policy.errors import InputError, Unavailable, shown
from policy.schema import from_json
from transforms.findings import Finding, Report, failed, found, named, told
from transforms.networks_file import read_networks
from transforms.output_probe import WORKER, Probe, remove, write_launcher
from transforms.preflight import SHARED, Preflight, Wanted, tried
from transforms.preflight_checks import versions
from transforms.shards import match_shards
from transforms.work import WorkerOptions

T = TypeVar("T")

MOST_SKEW_SECONDS = 30.0
"""Half of what a lease lives (pipelines.lease), far below what clouds allow of a token."""

_CONNECT_SECONDS = 5.0
_ADDRESSES = ("job_endpoint", "flink_master")
"""Flags of Beam that say where the launcher must be able to connect to."""

_READABLE = "give a path that can be read here"
_LACKS = re.compile(r"No module named|Can't get attribute")
_LINE = re.compile(r"^\s*[\w.]+(?:Error|Exception|Unavailable|Stopped)\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """What a preflight is asked to try, and how. `made`: folders that it makes for the output."""

    networks: str
    policy: str | None
    input: tuple[str, ...]
    worker: WorkerOptions
    probe: Probe
    made: tuple[Path, ...]
    beam_args: tuple[str, ...]


@dataclass(frozen=True)
class Answered:
    """A worker answered: `host` names it."""

    host: str


@dataclass(frozen=True)
class Taken:
    """The runner has taken the job; a worker is still to answer."""


def check_job(asked: Asked, teller: Teller) -> None:
    """Say a Finding for each check, and an Answered for each worker; nothing stays behind."""
    teller.at_end(lambda: removed(asked))
    try:
        _check(asked, teller)
    finally:
        removed(asked)


def removed(asked: Asked) -> Finding:
    """Remove what a check wrote, which may be done twice."""
    remedy = "look at its rights, and remove it by hand"
    return found("removal", lambda: remove(asked.probe, asked.made), remedy)


def _check(asked: Asked, teller: Teller) -> None:
    wanted, clock = _wanted(asked, teller)
    servers = [_reached(flag, address) for flag, address in _addresses(asked.beam_args)]
    for server in servers:
        teller.say(server)
    if not all(server.ok for server in servers):
        return
    start = time.monotonic()
    job, reports = _job(wanted, asked, teller)
    seen = _reports(asked.probe)
    hosts = ", ".join(dict.fromkeys(report.host for report in (*seen, *reports)))
    if hosts:
        seconds = time.monotonic() - start
        job = Finding("worker", ok=True, said=f"{hosts} answered after {seconds:.1f} s")
    teller.say(job)
    if job.ok and wanted.begun and not reports:
        teller.say(_seen(asked.probe, seen))
    for report in (*seen, *reports):
        _tell(report, clock, teller)


def _wanted(asked: Asked, teller: Teller) -> tuple[Wanted, float | None]:
    """What can be tried, after the launcher's own checks; and its clock less the output's."""
    networks = _had("networks file", lambda: read_networks(asked.networks), _READABLE, teller)
    policy, bundle, shards = asked.policy, None, None
    if policy is not None:
        bundle = _had("policy", lambda: read_policy(policy).bundle, _READABLE, teller)
    if asked.input:
        shards = _had("input", lambda: match_shards(asked.input), _READABLE, teller)
    output, clock = tried(asked.probe)
    if output.ok:
        write_launcher(asked.probe)
    teller.say(named(output, "launcher"))
    shard = shards[0] if shards else None
    wanted = Wanted(versions(), asked.worker, asked.probe, output.ok, networks, bundle, shard)
    return wanted, clock


def _had(check: str, work: Callable[[], T], remedy: str, teller: Teller) -> T | None:
    """What `work` gives, or None where it fails; says which."""
    had: list[T] = []

    def read() -> str:
        had.append(work())
        return "read"

    teller.say(named(found(check, read, remedy), "launcher"))
    return had[0] if had else None


def _addresses(beam_args: Sequence[str]) -> list[tuple[str, tuple[str, int]]]:
    """The hosts and ports that Beam's flags name, by flag; only those in the form host:port."""
    known = PipelineOptions(list(beam_args)).get_all_options()
    places = [(flag, str(known.get(flag) or "").rpartition("/")[2]) for flag in _ADDRESSES]
    parts = [(flag, place.rpartition(":")) for flag, place in places]
    return [(f"--{flag}", (host, int(port))) for flag, (host, _, port) in parts if port.isdigit()]


def _reached(flag: str, address: tuple[str, int]) -> Finding:
    """Whether something listens there."""

    def connect() -> str:
        try:
            socket.create_connection(address, _CONNECT_SECONDS).close()
        except OSError as error:
            where = f"{flag} {address[0]}:{address[1]}"
            raise Unavailable(f"{where}: {error.strerror or error}") from error
        return f"{address[0]}:{address[1]} answers"

    remedy = f"start what listens there, or give its right address: -- {flag}=host:port"
    return found(flag.removeprefix("--").replace("_", " "), connect, remedy)


def _job(wanted: Wanted, asked: Asked, teller: Teller) -> tuple[Finding, list[Report]]:
    """Run the job. Reports are those that came as errors, as the output could not carry them."""
    try:
        state = _run(wanted, asked.beam_args, teller)
    except Unavailable as error:
        text = str(error)
        return _failed_job(text, asked.beam_args), told(text)
    said = f"the job ended as {state}, and no worker's report came back"
    return failed("worker", said, SHARED), []


def _run(wanted: Wanted, beam_args: Sequence[str], teller: Teller) -> str:
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(list(beam_args)))
        _ = pipeline | Preflight(wanted)
        result: Any = pipeline.run()
        teller.say(Taken())
        teller.at_end(result.cancel)
        teller.at_end(lambda: remove(wanted.probe, ()))  # a worker may have gone on until then
        return str(result.wait_until_finish())
    except Exception as error:  # whatever a runner raises, of any library
        raise Unavailable(f"{type(error).__name__}: {error}") from error


def _failed_job(text: str, beam_args: Sequence[str]) -> Finding:
    lines = [line.strip() for line in _LINE.findall(text)] or text.strip().splitlines()
    code = InputError.exit_code if _LACKS.search(text) else Unavailable.exit_code
    return failed("worker", lines[-1], remedy_for(text, beam_args), code)


def remedy_for(text: str, beam_args: Sequence[str]) -> str:
    """What to do about a worker that did not start, or failed outside of every check."""
    if _LACKS.search(text):
        return (
            "the worker lacks this module: install adalabel, and the modules of your networks, as "
            "they are here where its workers start: beside adalabel-worker, or in the image"
        )
    known = PipelineOptions(list(beam_args)).get_all_options(drop_default=True)
    kind, config = known.get("environment_type"), known.get("environment_config")
    if kind == "EXTERNAL":
        return (
            f"start a pool beside each of the cluster's own workers, which reach it at {config}: "
            f"adalabel-worker --pool {str(config).rpartition(':')[2]}"
        )
    if kind or config:
        return f"look whether workers can start as {kind or 'DOCKER'} with {config}"
    return "look at the logs of the runner and its workers"


def _reports(probe: Probe) -> list[Report]:
    names = sorted(name for name in probe.names if name.startswith(WORKER))
    return [from_json(Report, probe.output.read(name, "a worker's report"), name) for name in names]


def _seen(probe: Probe, reports: Sequence[Report]) -> Finding:
    def look() -> str:
        if not reports:
            raise InputError(
                f"{probe.root}: the worker wrote its report there, and the launcher does not see it"
            )
        return "the launcher sees what the worker wrote"

    return named(found("output is shared", look, SHARED), "launcher")


def _tell(report: Report, clock: float | None, teller: Teller) -> None:
    teller.say(Answered(report.host))
    for finding in report.findings:
        teller.say(named(finding, "worker"))
    if report.clock_seconds is not None and clock is not None:
        teller.say(clocks(report.clock_seconds - clock, report.host))


def clocks(skew: float, host: str) -> Finding:
    """Whether a worker's clock, so many seconds before the launcher's, is near enough to it."""

    def compare() -> str:
        how = f"clock of {shown(host)} is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
        if abs(skew) > MOST_SKEW_SECONDS:
            raise InputError(f"{how} of the launcher's; wanted at most {MOST_SKEW_SECONDS:g}")
        return how

    return found("clocks", compare, "let both machines set their clocks by NTP")
