"""The images that all sides label: the photographs' tars, or some of them, or copies of them."""

import io
import itertools
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

PER_SHARD = 100
CAMERA_SIDE = 2000
"""Pixels; 4 megapixels in all."""


def make_corpus(photos: Path, folder: Path, images: int) -> None:
    """Tars with at least so many images; one that comes again gets another name."""
    folder.mkdir()
    originals = sorted(photos.glob("*.tar"))
    for number, original in zip(range(-(-images // PER_SHARD)), itertools.cycle(originals)):
        copy = number // len(originals)
        shutil.copyfile(original, folder / f"{original.stem}-{copy:03d}.tar")


def make_large(photos: Path, folder: Path, images: int, side: int = CAMERA_SIDE) -> None:
    """Tars of so many photographs, each enlarged to `side` pixels squared."""
    folder.mkdir()
    originals = sorted(photos.glob("*.tar"))[: -(-images // PER_SHARD)]
    for original in originals:
        with tarfile.open(original) as given, tarfile.open(folder / original.name, "w") as made:
            for member in given:
                file = given.extractfile(member)
                if file is None:
                    continue
                content = file.read()
                if member.name.endswith(".jpg"):
                    content = _enlarged(content, side)
                new = tarfile.TarInfo(member.name)
                new.size = len(content)
                made.addfile(new, io.BytesIO(content))


def _enlarged(encoded: bytes, side: int) -> bytes:
    buffer = io.BytesIO()
    large = decoded(encoded).resize((side, side), Image.Resampling.BICUBIC)
    large.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def true_labels(folder: Path) -> Mapping[str, int]:
    """Key, <shard>/<member>, -> class, of every image of the tars."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                name, _, kind = member.name.rpartition(".")
                content = archive.extractfile(member) if kind == "cls" else None
                if content:
                    found[f"{path.stem}/{name}"] = int(content.read())
    return found


def encoded_images(path: Path) -> Iterator[tuple[str, bytes]]:
    """Key and JPEG of each image of a tar, read from its beginning to its end."""
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if content:
                yield f"{path.stem}/{member.name.removesuffix('.jpg')}", content.read()


def image_places(paths: list[Path]) -> list[tuple[str, Path, int, int]]:
    """Key, tar, first byte and bytes of each image, for those who read in any order."""
    found = []
    for path in paths:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".jpg"):
                    key = f"{path.stem}/{member.name.removesuffix('.jpg')}"
                    found.append((key, path, member.offset_data, member.size))
    return found


def read_place(place: tuple[str, Path, int, int]) -> bytes:
    """The JPEG at a place."""
    _, path, first, size = place
    with path.open("rb") as file:
        file.seek(first)
        return file.read(size)


def decoded(encoded: bytes) -> Image.Image:
    """An image in RGB."""
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def pixels(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """[side, side, 3], as the networks of the data folder were measured."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def tensor(image: Image.Image, side: int) -> torch.Tensor:
    """[3, side, side], normalised, as everybody's transforms make it."""
    chosen = torch.from_numpy(pixels(image, side).copy()).permute(2, 0, 1).contiguous()
    return chosen.float().div(255).sub(0.5).div(0.5)
