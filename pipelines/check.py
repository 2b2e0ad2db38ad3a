"""adalabel check: try everything that a run needs, with one worker where the run would happen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pipelines.bounded import results
from pipelines.check_job import Answered, Asked, Taken, check_job, remedy_for, removed
from pipelines.hold import check_place
from pipelines.options import PlaceOptions
from policy.errors import InputError, Unavailable
from transforms.findings import Finding, failed
from transforms.output_probe import Probe, missing_folders

_LOG = logging.getLogger("adalabel")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(PlaceOptions):
    """Start one worker where a run would happen, and try there what the run will need."""

    networks: str
    """The networks file (TOML); each of its networks is loaded and run."""
    output: str
    """Where a run would write; nothing stays there."""
    policy: str | None = None
    """The policy's folder, to see whether it fits the networks."""
    input: tuple[str, ...] = ()
    """Shards, of which the first one is opened: paths, globs in quotes, or list files (.txt)."""
    wait: float = 600.0
    """Seconds for everything; then the job is cancelled, and what is known is told."""

    def __post_init__(self) -> None:
        """Refuse to wait for nothing."""
        super().__post_init__()
        if self.wait <= 0:
            raise InputError(f"--wait {self.wait:g}: wanted more than 0 seconds")


@dataclass(frozen=True)
class CheckReceipt:
    """What was tried and found. `hosts` are the workers that answered; `ok`: all checks passed."""

    output: str
    on: str
    ok: bool
    hosts: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0; 2 where something must be changed; 5 where the same may pass later; 7: damaged."""
        codes = [finding.exit_code for finding in self.findings if not finding.ok]
        return min(codes, default=0 if self.ok else Unavailable.exit_code)

    def text(self) -> str:
        """For people: a line for each check, and one for each remedy."""
        lines = []
        for finding in self.findings:
            lines.append(f"{'ok' if finding.ok else 'FAILED':7} {finding.check}: {finding.said}")
            if not finding.ok:
                lines.append(f"        -> {finding.remedy}")
        bad = sum(not finding.ok for finding in self.findings)
        hosts = ", ".join(self.hosts) or "no worker"
        verdict = f"{bad} of {len(self.findings)} checks failed" if bad else "all checks passed"
        return "\n".join([*lines, f"{self.output}, on {self.on} ({hosts}): {verdict}"])


def run(options: CheckOptions, beam_args: Sequence[str]) -> CheckReceipt:
    """Check; what fails is told in the receipt, whose exit code is the command's."""
    check_place(options.output)
    options.check_reach((options.output, *options.input))
    probe, made = Probe.of(options.output), missing_folders(options.output)
    asked = Asked(
        options.networks,
        options.policy,
        options.input,
        options.worker,
        probe,
        made,
        tuple(beam_args),
    )
    said: list[Finding | Answered | Taken] = []

    def take(what: Finding | Answered | Taken) -> None:
        said.append(what)
        if isinstance(what, Taken) and options.on != "local":
            _LOG.info("%s took the job; waiting for a worker (--wait %g)", options.on, options.wait)

    try:
        results(partial(check_job, asked), options.wait, take)
    except TimeoutError:
        late = f"within {options.wait:g} s (--wait)"
        text = f"the runner took no job {late}"
        if Taken() in said:
            text = f"the runner took the job, and no worker was done {late}; it was cancelled"
        remedy = remedy_for(text, beam_args)
        said.append(failed("worker", text, remedy, Unavailable.exit_code))
    except Unavailable as error:
        said.append(failed("worker", str(error), remedy_for("", beam_args), error.exit_code))
    finally:
        left = removed(asked)
    findings = tuple(one for one in said if isinstance(one, Finding))
    findings = findings if left.ok else (*findings, left)
    hosts = tuple(dict.fromkeys(one.host for one in said if isinstance(one, Answered)))
    good = bool(hosts) and all(finding.ok for finding in findings)
    return CheckReceipt(options.output, options.on, good, hosts, findings)
