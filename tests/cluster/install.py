"""Installs a Flink and a Spark cluster for tests into .cluster/, from PyPI and Maven Central.

Run by `./run test-cluster`; needs Java 17 and Maven. Versions and checksums stand here alone. They
are the newest for which the whole runner could be had when this was written: Beam's job servers
are shaded jars of nearly the same classes, here a jar that names the unshaded ones.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2] / ".cluster"


@dataclass(frozen=True)
class Engine:
    """A cluster's own files from PyPI, and Beam's runner for it from Maven.

    `members` of the sdist are kept, `sha256` is the sdist's; `jars_sha256` that of all jars of the
    runner and what it needs: of their names and digests, as `digest_of` makes it.
    """

    package: str
    version: str
    sha256: str
    members: tuple[str, ...]
    runner: str
    runner_version: str
    jars_sha256: str
    main: str


ENGINES = {
    "flink": Engine(
        package="apache-flink-libraries",
        version="1.16.3",
        sha256="d15df4185e9c507836b031879b64e18f68955dd7e90cd7d39b450513ed64ebbe",
        members=("deps/lib/flink-dist-", "deps/lib/flink-shaded-", "deps/lib/log4j-"),
        runner="beam-runners-flink-1.16",
        runner_version="2.54.0",
        jars_sha256="83e1bae819db275c2c7b0ea9bab3ba6db74e7c1fd469904c3de4bb2806e70567",
        main="org.apache.beam.runners.flink.FlinkJobServerDriver",
    ),
    "spark": Engine(
        package="pyspark",
        version="3.5.0",
        sha256="d41a9b76bd2aca370a6100d075c029e22ba44c5940927877e9435a3a9c566558",
        members=("deps/jars/",),
        runner="beam-runners-spark-3",
        runner_version="2.62.0",
        jars_sha256="80dd34d446da37fac836aa903912e77762a2131a1c66c6a2098699223bf65d40",
        main="org.apache.beam.runners.spark.SparkJobServerDriver",
    ),
}

_POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>adalabel</groupId><artifactId>cluster</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.beam</groupId>
<artifactId>{runner}</artifactId><version>{version}</version></dependency></dependencies></project>
"""
_MANIFEST_BYTES = 70  # a line of a jar's manifest holds at most 72 bytes with its end


def job_server(name: str) -> Path:
    """The job server's jar of an engine, for --flink_job_server_jar or --spark_job_server_jar."""
    return ROOT / name / "job-server.jar"


def is_installed(name: str) -> bool:
    """Whether an engine stands there in just the version that is wanted."""
    marker = ROOT / name / "installed.json"
    return marker.is_file() and json.loads(marker.read_text()) == _as_json(ENGINES[name])


def install(name: str) -> None:
    """Install an engine anew; raises SystemExit if what came is not what is wanted."""
    engine, folder = ENGINES[name], ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _distribution(engine, folder)
    jars = folder / "runner"
    (folder / "pom.xml").write_text(
        _POM.format(runner=engine.runner, version=engine.runner_version)
    )
    maven = [
        "mvn",
        "--batch-mode",
        "--quiet",
        "--strict-checksums",
        "--file",
        str(folder / "pom.xml"),
    ]
    _run(
        *maven,
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={jars}",
    )
    found = digest_of(jars)
    if found != engine.jars_sha256:
        sys.exit(f"{jars}: jars with digest {found}, wanted {engine.jars_sha256}")
    classpath = [jars, folder / "lib"] if name == "spark" else [jars]
    _write_job_server(job_server(name), engine.main, classpath)
    (folder / "installed.json").write_text(json.dumps(_as_json(engine)))


def digest_of(folder: Path) -> str:
    """One digest of all files of a folder: of their names and contents."""
    lines = [
        f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in sorted(folder.iterdir())
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _distribution(engine: Engine, folder: Path) -> None:
    """Get the sdist, and keep its jars in `lib`."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{engine.package}=={engine.version} --hash=sha256:{engine.sha256}\n")
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-binary=:all:", "--require-hashes", "-r", str(wanted), "-d", str(folder))  # fmt: skip
    (archive,) = folder.glob("*.tar.gz")
    (folder / "lib").mkdir()
    with tarfile.open(archive) as members:
        for member in members:
            inside = member.name.partition("/")[2]
            if member.isfile() and inside.startswith(engine.members) and inside.endswith(".jar"):
                member.name = Path(member.name).name
                members.extract(member, folder / "lib", filter="data")
    archive.unlink()


def _write_job_server(path: Path, main: str, folders: list[Path]) -> None:
    """A jar that holds nothing but the name of its main class and where all classes are."""
    jars = [jar for folder in folders for jar in sorted(folder.glob("*.jar"))]
    line = f"Class-Path: {' '.join(jar.as_uri() for jar in jars)}"
    parts = [line[at : at + _MANIFEST_BYTES] for at in range(0, len(line), _MANIFEST_BYTES)]
    manifest = "\r\n ".join(parts)
    with zipfile.ZipFile(path, "w") as jar:
        head = f"Manifest-Version: 1.0\r\nMain-Class: {main}\r\n"
        jar.writestr("META-INF/MANIFEST.MF", f"{head}{manifest}\r\n\r\n")


def _as_json(engine: Engine) -> object:
    """As it reads back; the path counts too, as the job server's jar names it."""
    return json.loads(json.dumps({**asdict(engine), "root": str(ROOT)}))


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        sys.exit(f"{command[0]} is not installed; test-cluster needs Java 17 and Maven")
    subprocess.run(command, check=True)


if __name__ == "__main__":
    for each in ENGINES:
        if not is_installed(each):
            sys.stderr.write(f"run: installing {each} into {ROOT / each}\n")
            install(each)
