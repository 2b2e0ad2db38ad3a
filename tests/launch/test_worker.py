"""adalabel-worker keeps the contract of Beam's worker images."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)

from launch import worker
from transforms.cores import PROCESSES

ROOT = Path(__file__).parents[2]


class Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """Tells workers where to go, and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:  # noqa: N802 - Beam's name
        del request
        self.asked += [value for key, value in context.invocation_metadata() if key == "worker_id"]
        info = beam_provision_api_pb2.ProvisionInfo(runner_capabilities=["a", "b"])
        info.pipeline_options.update({"beam:option:sdk_worker_parallelism:v1": "3"})
        info.logging_endpoint.url = "localhost:1"
        info.control_endpoint.url = "localhost:2"
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)


@pytest.fixture
def provision() -> Iterator[tuple[str, Provision]]:
    servicer = Provision()
    server = grpc.server(ThreadPoolExecutor(2))
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(None).wait()


def test_a_worker_becomes_beams_own_with_what_the_runner_tells_it(
    provision: tuple[str, Provision], monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(worker.os, "execve", lambda *given: became.append(given))
    monkeypatch.setattr(worker.os, "dup2", lambda *_: None)
    monkeypatch.delenv(PROCESSES, raising=False)
    endpoint, servicer = provision
    worker.main(["--id=1-1", f"--provision_endpoint={endpoint}", "--control_endpoint=x"])
    ((program, command, environment),) = became
    assert (program, command) == (sys.executable, [sys.executable, "-m", worker.HARNESS])
    assert servicer.asked == ["1-1"]
    assert environment["WORKER_ID"] == "1-1"
    assert environment["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "localhost:2"\n'
    assert environment["LOGGING_API_SERVICE_DESCRIPTOR"] == 'url: "localhost:1"\n'
    assert environment["RUNNER_CAPABILITIES"] == "a b"
    assert list(json.loads(environment["PIPELINE_OPTIONS"]).values()) == ["3"]
    assert environment[PROCESSES] == "3"
    assert environment["PATH"] == os.environ["PATH"]


def test_how_many_share_the_machine_is_the_users_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROCESSES, "5")
    info = beam_provision_api_pb2.ProvisionInfo()
    assert worker.worker_environment("1", info)[PROCESSES] == "5"


def test_a_worker_that_is_told_nothing_says_what_it_wants(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert worker.main(["--id=1"]) == 2
    assert "wanted --pool PORT, or --id and --provision_endpoint" in capsys.readouterr().err


def pool(port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "launch.worker", "--pool", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_pool_listens_on_the_loopback_alone_and_ends_what_it_started(
    provision: tuple[str, Provision],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pool(port) as running, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(60)
        lines = [
            line
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{name}").read_text().splitlines()
        ]
        found = [line.split() for line in lines]
        addresses = {
            at for _, at, _, state, *_ in found if state == "0A" and at[-4:] == f"{port:04X}"
        }
        assert all(address.endswith(f"0100007F:{port:04X}") for address in addresses)
        assert len(addresses) == 1
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="7-7")
        for name in ("control", "logging", "artifact", "provision"):
            getattr(request, f"{name}_endpoint").url = provision[0]
        stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        assert not stub.StartWorker(request).error
        deadline = time.monotonic() + 60
        while not provision[1].asked and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    assert provision[1].asked == ["7-7"]


def test_a_pool_says_that_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = pool(port)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 5
    assert f"adalabel-worker: port {port} of 127.0.0.1 cannot be had" in said
