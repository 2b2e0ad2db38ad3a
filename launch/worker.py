"""adalabel-worker: what a cluster runs to start one of Beam's Python workers on its machine.

It keeps the contract of Beam's worker images: `--id` and `--provision_endpoint` are given, the rest
is asked for there. So it is the command of a PROCESS environment, and what a pool
(`adalabel-worker --pool PORT`) starts for an EXTERNAL one. A worker runs the adalabel and the
networks' modules that are installed beside this command; nothing is installed for a job.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

from launch.worker_pool import serve
from policy.errors import InputError, Unavailable
from transforms.cores import PROCESSES

HARNESS = "apache_beam.runners.worker.sdk_worker_main"
_PROVISION_SECONDS = 60
_PARALLELISM = "beam:option:sdk_worker_parallelism:v1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Become a worker, or serve a pool of them until told to stop.

    2 on wrong flags, 5 where a pool cannot have its port.
    """
    given = _parser().parse_args(arguments)
    if given.pool is not None:
        return _pool(given.pool)
    if not given.id or not given.provision_endpoint:
        sys.stderr.write("adalabel-worker: wanted --pool PORT, or --id and --provision_endpoint\n")
        return InputError.exit_code
    environment = worker_environment(given.id, asked(given.id, given.provision_endpoint))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a pool gives a pipe that nobody reads
    os.execve(sys.executable, [sys.executable, "-m", HARNESS], {**os.environ, **environment})  # noqa: S606
    return 0


def _pool(port: int) -> int:
    try:
        serve(port)
    except Unavailable as error:
        sys.stderr.write(f"adalabel-worker: {error}\n")
        return error.exit_code
    return 0


def asked(worker: str, endpoint: str) -> Any:  # noqa: ANN401 - a protobuf message
    """What the runner tells this worker: options, where to log, who controls it."""
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        answer = stub.GetProvisionInfo(
            request, metadata=(("worker_id", worker),), timeout=_PROVISION_SECONDS
        )
    return answer.info


def worker_environment(worker: str, info: Any) -> Mapping[str, str]:  # noqa: ANN401
    """The environment variables that Beam's worker reads, and ours.

    Workers of one runner process share its machine; where several runner processes share one,
    only the user knows, and says so by setting the variable.
    """
    options = json_format.MessageToDict(info.pipeline_options)
    return {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(info.logging_endpoint.url),
        "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(info.control_endpoint.url),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        PROCESSES: os.environ.get(PROCESSES) or str(max(1, int(options.get(_PARALLELISM, 1)))),
    }


def _descriptor(url: str) -> str:
    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adalabel-worker", description=__doc__)
    parser.add_argument("--pool", type=int, metavar="PORT", help="start workers on request, here")
    for name in ("id", "provision_endpoint"):
        parser.add_argument(f"--{name}", help="given by the runner")
    for name in ("logging_endpoint", "artifact_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)  # asked for at the provision's
    return parser


if __name__ == "__main__":
    sys.exit(main())
