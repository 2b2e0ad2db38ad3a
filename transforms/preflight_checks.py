"""What a preflight tries on a worker, one function a check: it says what it found, or raises.

torch is imported where it is needed and not above: that it can be is one of the checks.
"""

import importlib
import io
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from PIL import Image

from policy.bundle import Bundle
from policy.errors import InputError, Unavailable, shown
from transforms.decoding import HereDecoder
from transforms.networks_file import NetworksFile
from transforms.shards import ReadFailed, Shard, read_records
from transforms.shards.record import CONTAINER
from transforms.work import WorkerOptions

PACKAGES = ("adalabel", "apache-beam", "torch", "torchvision", "pillow", "simplejpeg", "numpy")
"""What must be the same on both sides: it decides labels, or what the two can say to each other."""

DRIVER = Path("/proc/driver/nvidia/version")


def versions() -> dict[str, str]:
    """Of Python (major and minor) and of PACKAGES, without local parts as in 2.6+cu124."""
    result = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            result[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            result[package] = "none"
    return result


def same_versions(wanted: Mapping[str, str]) -> str:
    """Raise InputError, naming each package that is another one here than at the launcher."""
    ours = versions()
    differ = [
        f"{name} {ours.get(name)} (the launcher has {theirs})"
        for name, theirs in wanted.items()
        if ours.get(name) != theirs
    ]
    if differ:
        raise InputError(f"{', '.join(differ)}; {sys.executable}")
    return ", ".join(f"{name} {found}" for name, found in ours.items())


def torch_imports() -> str:
    """Import torch as the networks need it."""
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(f"torch cannot be imported: {shown(error)}") from error
    return f"torch {torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"


def gpu(device: str) -> str:
    """Find the GPU of this name, and multiply on it."""
    import torch  # noqa: PLC0415 - see above

    from transforms.gpus import usable_device  # noqa: PLC0415

    try:
        chosen = usable_device(device)
    except InputError as error:
        raise InputError(f"{error} {_why_no_gpu(torch.version.cuda)}") from error
    about = torch.cuda.get_device_properties(chosen)
    free, total = torch.cuda.mem_get_info(chosen)
    multiplies(device)
    return (
        f"{about.name}, {total / 1e9:.0f} GB of which {free / 1e9:.0f} free, driver "
        f"{driver_version()}, CUDA {torch.version.cuda}, multiplies right"
    )


def multiplies(device: str) -> None:
    """Multiply two matrices of small whole numbers, which is exact everywhere.

    Raises InputError if the result is wrong, and Unavailable if the device fails.
    """
    import torch  # noqa: PLC0415 - see above

    ones = (torch.arange(256 * 256) % 3).reshape(256, 256).float()
    try:
        product = (ones.to(device) @ ones.to(device)).cpu()
    except RuntimeError as error:
        raise Unavailable(f"{device} cannot multiply two matrices: {shown(error)}") from error
    if not torch.equal(product, ones @ ones):
        raise InputError(f"{device} multiplies two matrices of whole numbers wrongly")


def _why_no_gpu(cuda: str | None) -> str:
    if cuda is None:
        return "This torch is built without CUDA: install one that has it in the worker's image."
    if not DRIVER.exists():
        return (
            f"No NVIDIA driver is visible ({DRIVER} is missing): give the worker a GPU (Kubernetes "
            "nvidia.com/gpu, docker --gpus, Dataflow worker_accelerator with install-nvidia-driver)"
        )
    return f"The driver is {driver_version()}; this torch wants one that knows CUDA {cuda}."


def driver_version() -> str:
    """Of the NVIDIA driver."""
    if not DRIVER.exists():
        return "unknown"
    words = DRIVER.read_text().split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def run_network(networks: NetworksFile, name: str, worker: WorkerOptions) -> str:
    """Load a network with its weights, and run one batch of a made image through it."""
    from transforms.extract import load_engine, run_all  # noqa: PLC0415 - imports torch

    engine = load_engine(networks, [name], worker)
    decoded = HereDecoder()(made_image(), engine.inputs, keep_image=False)
    pixels = {stage: [made] * worker.batch_size for stage, made in decoded.pixels.items()}
    start = time.perf_counter()
    try:
        run_all(engine, pixels, 1)
    except Exception as error:  # the network's own, or the device's
        raise InputError(
            f"fails on a batch of {worker.batch_size} on {worker.device}: {type(error).__name__}: "
            f"{shown(error)}; if memory is short, give a smaller --batch-size"
        ) from error
    milliseconds = (time.perf_counter() - start) * 1e3
    return (
        f"fingerprint {engine.fingerprints[name]}; a first batch of {worker.batch_size} on "
        f"{worker.device} in {milliseconds:.0f} ms"
    )


def made_image() -> bytes:
    """A JPEG of noise, 320 x 240."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def fits(networks: NetworksFile, bundle: Bundle, worker: WorkerOptions) -> str:
    """Load what a policy was fitted for; raises InputError unless it is what is here."""
    from transforms.label import check_fits, load_for_policy  # noqa: PLC0415 - imports torch

    engine = load_for_policy(networks, bundle, worker)
    check_fits(bundle, engine)
    return f"policy {bundle.digest} fits {', '.join(engine.fingerprints)}"


def first_record(shard: Shard) -> str:
    """Read the first record of a shard; raises InputError if there is none."""
    try:
        record = next(iter(read_records(shard)), None)
    except ReadFailed as error:
        raise Unavailable(shown(error)) from error
    if record is None:
        return f"{shard.path}: empty"
    if record.status == CONTAINER:
        raise InputError(f"{shard.path}: {record.error}")
    return f"{shard.path}: first record {record.key!r}, {len(record.image)} bytes, {record.status}"
