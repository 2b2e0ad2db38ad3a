"""What Flink and Spark have in common: flags that a cluster needs and nobody can guess."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from apache_beam.options.pipeline_options import (
    PipelineOptions,
    PortableOptions,
    SetupOptions,
)

from pipelines.options import refuse_relative
from policy.errors import InputError

_ENVIRONMENT = (
    "--environment_type=EXTERNAL --environment_config=HOST:PORT (a pool of workers beside each of "
    "the cluster's own: adalabel-worker --pool PORT), or --environment_type=PROCESS "
    '--environment_config=\'{"command": "/path/to/adalabel-worker"}\''
)
_INSTALLS = ("setup_file", "requirements_file", "extra_packages", "save_main_session")


def check_environment(flags: Sequence[str]) -> None:
    """Raise InputError unless the flags say where Python workers come from.

    Beam's defaults are a Docker image of its own, without adalabel, and the launcher itself.
    """
    options = PipelineOptions(list(flags))
    portable = options.view_as(PortableOptions)
    kind, config = portable.environment_type, portable.environment_config
    if not kind:
        raise InputError(f"--environment_type is not given; wanted {_ENVIRONMENT}; docs/flink.md")
    if kind.upper() == "LOOPBACK":
        raise InputError(
            "--environment_type=LOOPBACK would send all images through this process; wanted "
            f"{_ENVIRONMENT}"
        )
    if not config:
        raise InputError(
            f"--environment_config is not given for --environment_type={kind}; wanted "
            f"{_ENVIRONMENT}"
        )
    asked = options.view_as(SetupOptions)
    for name in _INSTALLS:
        if getattr(asked, name):
            raise InputError(
                f"--{name}: workers run what is installed beside adalabel-worker, and install "
                "nothing for a job; install it there, and leave the flag out"
            )


def check_paths(options: object) -> None:
    """Raise InputError where options name a file by a path that holds in this folder alone."""
    for name in ("networks", "input", "output"):
        given = getattr(options, name, ())
        refuse_relative(f"--{name}", (given,) if isinstance(given, str) else given)


def has_endpoint(flags: Sequence[str]) -> bool:
    """Whether a job server that runs already is named, so that none is to be started."""
    return bool(PipelineOptions(list(flags)).view_as(PortableOptions).job_endpoint)


def check_jar(flag: str, path: str | None, artifact: str) -> None:
    """Raise InputError unless the job server is a file here; Beam itself would download it."""
    remedy = (
        f"wanted the jar of Maven's org.apache.beam:{artifact}, or "
        "--job_endpoint=HOST:PORT of a job server that runs"
    )
    if not path:
        raise InputError(f"--{flag} is not given; {remedy}")
    if not Path(path).is_file():
        raise InputError(f"--{flag}={path}: no such file; {remedy}")


def stop_job_server() -> None:
    """End the job server that this process has started, where the system lists its children.

    It would otherwise outlive a process that ends at once.
    """
    for child in _children():
        with suppress(OSError):  # one that has ended meanwhile
            if b"-jar" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                os.kill(child, signal.SIGTERM)


def _children() -> Iterator[int]:
    """The processes that this one has started, by any of its threads."""
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile; its children are another's now
            yield from map(int, listed.read_text().split())
