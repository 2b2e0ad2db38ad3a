"""Real clusters on the loopback interface: Flink with two TaskManagers, Spark with two workers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import install
from processes import LOOPBACK, asked, free_port, listens, start, stop, until

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
io.tmp.dirs: {tmp}
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


def java(name: str, main: str, *arguments: str) -> list[str]:
    """A command that runs a class of an engine's own files."""
    lib = str(install.ROOT / name / "lib" / "*")
    return ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", *OPENED, "-cp", lib, main, *arguments]


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs: the ports of master, web page and pool; its processes by name.

    `server` is the port of a job server that runs already, 0 where there is none.
    """

    folder: Path
    name: str
    port: int
    web: int
    pool: int
    server: int = 0
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
    def endpoint(self) -> list[str]:
        """In the place of `flags`, for the job server that runs already."""
        master = f"--flink_master={LOOPBACK}:{self.port}"  # to cancel by
        return [f"--job_endpoint={LOOPBACK}:{self.server}", master]

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
        """The states of jobs by name: of all on Flink, of those that run on Spark."""
        if self.name == "flink":
            found = asked(f"http://{LOOPBACK}:{self.web}/jobs/overview")["jobs"]
        else:
            found = asked(f"http://{LOOPBACK}:{self.web}/json/")["activeapps"]
        return {job["name"]: job["state"] for job in found}


@contextmanager
def flink(folder: Path) -> Iterator[Cluster]:
    """One JobManager, two TaskManagers with a slot each, and a pool of Python workers beside."""
    conf = folder / "conf"
    conf.mkdir(parents=True)
    port = free_port()
    cluster = Cluster(folder, "flink", port, port, free_port(), free_port())
    tmp = folder / "tmp"  # its own: Flink looks through what TaskManagers of this name left there
    tmp.mkdir()
    (conf / "flink-conf.yaml").write_text(
        _FLINK_CONF.format(rpc=free_port(), rest=cluster.port, tmp=tmp)
    )
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
        cluster.processes["job-server"] = start(folder, "job-server", _job_server(cluster))
        until("the job server", lambda: listens(cluster.server))
        yield cluster


def _job_server(cluster: Cluster) -> list[str]:
    """Beam's job server for Flink, as a process of its own."""
    where = ["--flink-master", f"{LOOPBACK}:{cluster.port}", "--job-host", LOOPBACK]
    ports = ["--job-port", str(cluster.server), "--artifact-port", "0", "--expansion-port", "0"]
    jar = str(install.job_server("flink"))
    return ["java", *OPENED, "-jar", jar, *where, *ports, "--artifacts-dir", str(cluster.folder)]


@contextmanager
def spark(folder: Path) -> Iterator[Cluster]:
    """A master, two workers with a core each, and a pool of Python workers beside."""
    folder.mkdir(parents=True)
    cluster = Cluster(folder, "spark", free_port(), free_port(), free_port())
    home = {
        "SPARK_HOME": str(_spark_home(folder)),
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_SCALA_VERSION": "2.12",
    }
    package, host = "org.apache.spark.deploy", ("--host", LOOPBACK)
    with _running(cluster):
        at = ("--port", str(cluster.port), "--webui-port", str(cluster.web))
        command = java("spark", f"{package}.master.Master", *host, *at)
        cluster.processes["master"] = start(folder, "master", command, **home)
        master = f"http://{LOOPBACK}:{cluster.web}/json/"
        until("Spark's master", lambda: asked(master)["status"] == "ALIVE")
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
