"""Real clusters on the loopback interface: Flink with two TaskManagers, Spark with two workers.

Every process is a child that the kernel ends when this process ends, however it ends.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import install

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
START_SECONDS = 120
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

# Flink 1.16 and Spark 3.5 look into classes that Java 17 keeps closed
OPENED = [
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            "java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net",
            "java.nio", "java.text", "java.time", "java.util", "java.util.concurrent",
            "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch",
        )
    ),
]  # fmt: skip

_FLINK_CONF = """
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 1
restart-strategy: fixed-delay
restart-strategy.fixed-delay.attempts: 3
restart-strategy.fixed-delay.delay: 1 s
heartbeat.interval: 1000
heartbeat.timeout: 10000
taskmanager.cpu.cores: 1
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 0
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.managed.size: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
"""
_LOG4J = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c - %m%n
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def start(folder: Path, name: str, command: list[str], **variables: str) -> subprocess.Popen[bytes]:
    """Start a child that ends with this process; what it says goes to NAME.log."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - nothing else runs between fork and exec
        )


def _end_with_parent() -> None:
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for pytest, which then ends them in order
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child, gently if it lets us."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until(what: str, found: Callable[[], Any]) -> Any:
    """Wait for something that starts; raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if answer := found():
                return answer
        except OSError:
            pass  # nobody listens yet
        time.sleep(0.2)
    message = f"{what}: not there after {START_SECONDS} s"
    raise TimeoutError(message)


def asked(url: str) -> Any:
    """What an HTTP server on the loopback says, as JSON."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def java(name: str, main: str, *arguments: str) -> list[str]:
    """A command that runs a class of an engine's own files."""
    lib = str(install.ROOT / name / "lib" / "*")
    return ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", *OPENED, "-cp", lib, main, *arguments]


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs: where it listens, and its processes by name."""

    folder: Path
    name: str
    port: int
    pool: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def flags(self) -> list[str]:
        """What goes after `--on NAME --workers 2 --`, but for the environment."""
        jar = install.job_server(self.name)
        if self.name == "flink":
            return [f"--flink_master={LOOPBACK}:{self.port}", f"--flink_job_server_jar={jar}"]
        driver = ("-Dspark.driver.host=127.0.0.1", "-Dspark.driver.bindAddress=127.0.0.1")
        return [
            f"--spark_master_url=spark://{LOOPBACK}:{self.port}",
            f"--spark_job_server_jar={jar}",
            *(f"--job_server_jvm_properties={each}" for each in driver),
        ]

    @property
    def external(self) -> list[str]:
        """The flags of the environment with a pool."""
        return ["--environment_type=EXTERNAL", f"--environment_config=localhost:{self.pool}"]

    def add_taskmanager(self, name: str) -> None:
        """Start a TaskManager, as whoever runs a cluster does when one is gone."""
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        conf = str(self.folder / "conf")
        command = java("flink", main, "--configDir", conf, "-D", f"taskmanager.resource-id={name}")
        command.insert(1, f"-Dlog4j.configurationFile={conf}/log4j.properties")
        self.processes[name] = start(self.folder, name, command)

    def jobs(self) -> dict[str, str]:
        """The states of Flink's jobs, by name."""
        found = asked(f"http://{LOOPBACK}:{self.port}/jobs/overview")["jobs"]
        return {job["name"]: job["state"] for job in found}


@contextmanager
def flink(folder: Path) -> Iterator[Cluster]:
    """One JobManager, two TaskManagers with a slot each, and a pool of Python workers beside."""
    conf = folder / "conf"
    conf.mkdir(parents=True)
    cluster = Cluster(folder, "flink", free_port(), free_port())
    (conf / "flink-conf.yaml").write_text(_FLINK_CONF.format(rpc=free_port(), rest=cluster.port))
    (conf / "log4j.properties").write_text(_LOG4J)
    main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    command = java("flink", main, "--configDir", str(conf))
    command.insert(1, f"-Dlog4j.configurationFile={conf}/log4j.properties")
    with _running(cluster):
        cluster.processes["jobmanager"] = start(folder, "jobmanager", command)
        for name in ("taskmanager-1", "taskmanager-2"):
            cluster.add_taskmanager(name)
        overview = f"http://{LOOPBACK}:{cluster.port}/overview"
        until("two TaskManagers", lambda: asked(overview)["taskmanagers"] == 2)
        yield cluster


@contextmanager
def spark(folder: Path) -> Iterator[Cluster]:
    """A master, two workers with a core each, and a pool of Python workers beside."""
    folder.mkdir(parents=True)
    cluster, web = Cluster(folder, "spark", free_port(), free_port()), free_port()
    home = {
        "SPARK_HOME": str(_spark_home(folder)),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_SCALA_VERSION": "2.12",
    }
    package, host = "org.apache.spark.deploy", ("--host", LOOPBACK)
    with _running(cluster):
        at = ("--port", str(cluster.port), "--webui-port", str(web))
        command = java("spark", f"{package}.master.Master", *host, *at)
        cluster.processes["master"] = start(folder, "master", command, **home)
        master = f"http://{LOOPBACK}:{web}/json/"
        until("Spark's master", lambda: asked(master)["status"] == "ALIVE")
        use = ("--cores", "1", "--memory", "1g", "--webui-port", str(free_port()))
        for number in (1, 2):
            use = ("--cores", "1", "--memory", "1g", "--webui-port", str(free_port()))
            where = ("--work-dir", str(folder / "work"), f"spark://{LOOPBACK}:{cluster.port}")
            command = java("spark", f"{package}.worker.Worker", *host, *use, *where)
            cluster.processes[f"worker-{number}"] = start(
                folder, f"worker-{number}", command, **home
            )
        until("two Spark workers", lambda: asked(master)["aliveworkers"] == 2)
        yield cluster


@contextmanager
def _running(cluster: Cluster) -> Iterator[None]:
    """A pool of Python workers while the body runs; ends it and what the body started."""
    command = [sys.executable, "-m", "launch.worker", "--pool", str(cluster.pool)]
    variables = {"ADALABEL_WORKER_PROCESSES": "2", "OMP_NUM_THREADS": "1"}
    cluster.processes["pool"] = start(cluster.folder, "pool", command, **variables)
    try:
        yield
    finally:
        for process in reversed(cluster.processes.values()):
            stop(process)


def _spark_home(folder: Path) -> Path:
    """What Spark's worker looks for when it starts an executor: the jars in a folder `jars`."""
    home = folder / "home"
    home.mkdir()
    (home / "jars").symlink_to(install.ROOT / "spark" / "lib")
    return home
