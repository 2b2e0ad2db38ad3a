import builtins
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from policy.bundle import Bundle
from policy.errors import InputError, Unavailable
from policy.rules import always
from transforms import preflight_checks
from transforms.networks_file import read_networks
from transforms.preflight_checks import (
    driver_version,
    first_record,
    fits,
    gpu,
    multiplies,
    run_network,
    same_versions,
    torch_imports,
    versions,
)
from transforms.shards import match_shards
from transforms.stages import Engine
from transforms.work import WorkerOptions

WORKER = WorkerOptions(batch_size=4, decode_threads=1, threads=1, device="cpu")
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    return tiny.write_networks(tmp_path / "networks")


def test_the_same_versions_are_listed() -> None:
    assert f"torch {torch.__version__.partition('+')[0]}" in same_versions(versions())


def test_each_package_that_differs_is_named_with_both_versions() -> None:
    theirs = versions() | {"torch": "1.0", "python": "3.9"}
    with pytest.raises(InputError, match=r"python 3\.\d+ \(the launcher has 3\.9\), torch .* 1\.0"):
        same_versions(theirs)


def test_a_package_that_is_not_installed_is_another_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = versions()
    monkeypatch.setattr(preflight_checks, "PACKAGES", ("adalabel", "no-such-package"))
    with pytest.raises(InputError, match=r"no-such-package none \(the launcher has 9\)"):
        same_versions({"adalabel": theirs["adalabel"], "no-such-package": "9"})


def test_a_build_for_another_gpu_is_the_same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_checks, "version", lambda _: "2.6+cu124")
    assert versions()["torch"] == "2.6"


def test_torch_is_imported() -> None:
    assert torch_imports().startswith(f"torch {torch.__version__}, CUDA ")


def test_a_torch_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match=r"torch cannot be imported: .*torchvision"):
        torch_imports()


def test_the_checks_are_imported_without_torch() -> None:
    kept = {name for name in sys.modules if name.partition(".")[0] in ("transforms", "torch")}
    before = {name: sys.modules.pop(name) for name in kept}
    real = builtins.__import__
    asked: list[str] = []

    def watched(name: str, *rest: Any, **more: Any) -> Any:
        asked.append(name)
        return real(name, *rest, **more)

    builtins.__import__ = watched
    try:
        __import__("transforms.preflight")
    finally:
        builtins.__import__ = real
        for name in [n for n in sys.modules if n.partition(".")[0] == "transforms"]:
            del sys.modules[name]
        sys.modules.update(before)
    assert "transforms.findings" in asked
    assert "torch" not in {name.partition(".")[0] for name in asked}


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.parametrize(
    ("cuda", "driver", "remedy"),
    [
        (None, False, "built without CUDA: install one that has it in the worker's image"),
        ("12.4", False, r"No NVIDIA driver is visible .*nvidia.com/gpu, docker --gpus"),
        ("12.4", True, r"The driver is 550.54.15; this torch wants one that knows CUDA 12.4"),
    ],
)
def test_a_missing_gpu_is_told_with_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str | None, *, driver: bool, remedy: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(preflight_checks, "DRIVER", tmp_path / "version")
    if driver:
        (tmp_path / "version").write_text(DRIVER)
    with pytest.raises(InputError, match=rf"--device cuda: .* sees 0 GPUs.*{remedy}"):
        gpu("cuda")


def test_a_gpu_is_told_by_name_memory_and_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight_checks, "DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text(DRIVER)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (30_000_000_000, 40_000_000_000))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(name="Tiny 4000")
    )
    monkeypatch.setattr(preflight_checks, "multiplies", lambda _: None)
    said = gpu("cuda:0")
    assert said.startswith("Tiny 4000, 40 GB of which 30 free, driver 550.54.15, CUDA ")


def test_a_driver_that_says_nothing_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight_checks, "DRIVER", tmp_path / "version")
    assert driver_version() == "unknown"
    (tmp_path / "version").write_text("no number")
    assert driver_version() == "unknown"


def test_a_device_that_multiplies_right_passes() -> None:
    multiplies("cpu")


def test_a_device_that_multiplies_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    with pytest.raises(InputError, match="cpu multiplies two matrices of whole numbers wrongly"):
        multiplies("cpu")


def test_a_device_that_cannot_multiply_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="meta cannot multiply two matrices: "):
        multiplies("meta")


def test_a_network_is_loaded_and_run(networks: Path) -> None:
    said = run_network(read_networks(str(networks)), "small", WORKER)
    assert "a first batch of 4 on cpu in" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "small.safetensors").unlink(), r"small.safetensors: weights of network "),
        (lambda f: (f / "small.safetensors").write_bytes(b"x" * 99), "holds no readable weights"),
        (
            lambda f: (f / "small.safetensors").write_bytes((f / "big.safetensors").read_bytes()),
            "does not fit tiny_networks:branchy",
        ),
        (
            lambda f: (f / "networks.toml").write_text(
                (f / "networks.toml").read_text().replace("tiny_networks:", "only_at_launcher:")
            ),
            "module 'only_at_launcher' cannot be imported",
        ),
    ],
    ids=["missing weights", "damaged weights", "another network's weights", "no module"],
)
def test_a_network_that_cannot_be_loaded_is_told(networks: Path, change: Any, message: str) -> None:
    change(networks.parent)
    with pytest.raises(InputError, match=message):
        run_network(read_networks(str(networks)), "small", WORKER)


def test_a_batch_that_fails_is_told_with_its_size(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Engine.input_batch

    def short(self: Engine, stage: str, pixels: Any) -> torch.Tensor:
        if len(pixels) > 2:  # more than the two images that loading tries
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return real(self, stage, pixels)

    monkeypatch.setattr(Engine, "input_batch", short)
    with pytest.raises(InputError, match=r"batch of 4 on cpu: OutOfMemoryError.*smaller --batch"):
        run_network(read_networks(str(networks)), "small", WORKER)


def test_a_policy_fits_its_own_networks_and_no_others(networks: Path) -> None:
    spec = read_networks(str(networks))
    engine = Engine(spec, "cpu")
    bundle = Bundle(always(engine.graph, "big"), engine.class_names, dict(engine.fingerprints))
    assert fits(spec, bundle, WORKER) == f"policy {bundle.digest} fits small, big"
    other = Bundle(bundle.policy, bundle.class_names, {"big": "0" * 16})
    with pytest.raises(InputError, match="was fitted for network 'big' with fingerprint 0000"):
        fits(spec, other, WORKER)


def test_the_first_record_of_a_shard_is_read(tmp_path: Path) -> None:
    path = tiny.write_tar(tmp_path / "s.tar", tiny.image_members(np.random.default_rng(0), 1))
    (shard,) = match_shards([str(path)])
    assert f"{path}: first record 's/0000', " in first_record(shard)


def test_an_empty_shard_is_no_failure(tmp_path: Path) -> None:
    (shard,) = match_shards([str(tiny.write_tar(tmp_path / "s.tar", []))])
    assert first_record(shard) == f"{tmp_path}/s.tar: empty"


def test_a_damaged_shard_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(b"no archive at all" * 100)
    (shard,) = match_shards([str(path)])
    with pytest.raises(InputError, match=r"s\.tar: "):
        first_record(shard)


def test_a_shard_that_is_replaced_meanwhile_is_unavailable(tmp_path: Path) -> None:
    path = tiny.write_tar(tmp_path / "s.tar", [])
    (shard,) = match_shards([str(path)])
    tiny.write_tar(path, [])
    path.touch()
    path.write_bytes(path.read_bytes() + bytes(10_240))
    with pytest.raises(Unavailable, match=r"s\.tar"):
        first_record(shard)
