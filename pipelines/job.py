"""The job file: what `adalabel nightly` and `adalabel refit` do again and again, said once."""

from dataclasses import field, fields, replace
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pipelines.fit import FitOptions
from pipelines.options import RunOptions
from pipelines.places import Runner
from policy.errors import InputError
from policy.schema import STRICT, from_fields
from transforms.toml_file import at, read_toml
from transforms.watch import OnAlarm

_NOT_OURS = ("json", "mode")
"""Options of a run that each call decides anew."""

_DASHES = ConfigDict(
    **STRICT, alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
)


@dataclass(frozen=True, kw_only=True, config=_DASHES)
class RunTable(RunOptions):
    """[run]: the options of a run, called as on the command line, and Beam's own flags."""

    beam: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what a job cannot decide."""
        super().__post_init__()
        for option in fields(RunOptions):
            if option.name in _NOT_OURS and getattr(self, option.name) != option.default:
                raise InputError(
                    f"run.{option.name}: is for the command line; leave it out of the job"
                )

    @property
    def runner(self) -> Runner:
        """Where the pipelines run."""
        return replace(super().runner, beam_flags=self.beam)

    @property
    def options(self) -> dict[str, Any]:
        """The fields of RunOptions, to make a command's options of."""
        return {option.name: getattr(self, option.name) for option in fields(RunOptions)}


@dataclass(frozen=True, kw_only=True, config=_DASHES)
class AuditTable:
    """[audit]: the share of images that is audited, and what is done about an alarm.

    As --audit-fraction and --on-alarm of `adalabel classify`, over all nights of one policy.
    """

    fraction: float = 0.01
    on_alarm: OnAlarm = "stop"

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.fraction <= 1:
            raise InputError(
                f"audit.fraction {self.fraction:g}: wanted 0 (no audit) to 1 (every image)"
            )


@dataclass(frozen=True, kw_only=True, config=_DASHES)
class RefitTable(FitOptions):
    """[refit]: labelled shards, the table they are extracted to, and the options of a fit.

    Those are called as on the command line of `adalabel fit`.
    """

    policy: str = ""
    input: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could never put a policy into use."""
        super().__post_init__()
        if self.policy or self.json:
            name = "policy" if self.policy else "json"
            raise InputError(f"refit.{name}: is for the command line; leave it out of the job")
        if not self.input:
            raise InputError('refit.input: no shards; wanted paths or globs: ["labelled/*.tar"]')
        if self.max_loss is None or self.confidence is None:
            raise InputError(
                "refit.max-loss and refit.confidence: only a policy with a proved loss is put into "
                "use; give both"
            )
        if not self.test_share:
            raise InputError(
                "refit.test-share 0: policies are compared on that share of the new images; wanted "
                "more than 0"
            )

    def options(self, policy: str) -> FitOptions:
        """The options of a fit that writes to this folder."""
        own = {option.name: getattr(self, option.name) for option in fields(FitOptions)}
        return FitOptions(**own | {"policy": policy})


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Job:
    """The whole file; paths are relative to the file's own folder.

    `networks` is the networks file, `policies` the registry, `input` the shards to label as on the
    command line, and `output` where labels go.
    """

    networks: str
    policies: str
    input: tuple[str, ...]
    output: str
    run: RunTable = field(default_factory=RunTable)
    audit: AuditTable = field(default_factory=AuditTable)
    refit: RefitTable | None = None

    def __post_init__(self) -> None:
        """Refuse a job that labels nothing."""
        if not self.input:
            raise InputError('input: no shards; wanted paths or globs, such as ["corpus/*.tar"]')


def read_job(path: str) -> Job:
    """Read a job file, with its paths made absolute; raises InputError if it is not exactly one."""
    found, folder = read_toml(path, "the job file")
    job = from_fields(Job, found, path)
    return replace(
        job,
        networks=at(folder, job.networks),
        policies=at(folder, job.policies),
        input=tuple(at(folder, pattern) for pattern in job.input),
        output=at(folder, job.output).rstrip("/"),
        refit=job.refit and _refit_at(folder, job.refit),
    )


def _refit_at(folder: str, refit: RefitTable) -> RefitTable:
    return replace(
        refit,
        table=at(folder, refit.table).rstrip("/"),
        input=tuple(at(folder, pattern) for pattern in refit.input),
        costs=None if refit.costs is None else at(folder, refit.costs),
    )
