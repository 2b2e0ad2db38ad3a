"""Plain image files: those of one folder make shards of at most FILES_PER_SHARD files.

A file `cat.cls` beside `cat.jpg`, if it is given too, holds its label. The key is the file's name.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from transforms.shards.limits import FILES_PER_SHARD, MAX_IMAGE_BYTES, MAX_LABEL_BYTES
from transforms.shards.record import CONTAINER, Record, labelled
from transforms.shards.shard import ImageFile, Shard
from transforms.shards.source import open_shard

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_LABEL = ".cls"
EXTENSIONS = (*_IMAGES, _LABEL)


def grouped(files: Iterable[tuple[str, ImageFile]]) -> Iterator[Shard]:
    """Shards of plain files, each given with its folder's name, in the order of paths."""
    folders: dict[tuple[str, str], list[ImageFile]] = defaultdict(list)
    for name, file in files:
        folders[posixpath.dirname(file.path), name].append(file)
    for (folder, name), found in sorted(folders.items()):
        paired = _paired(sorted(found, key=lambda file: file.path))
        for number, start in enumerate(range(0, len(paired), FILES_PER_SHARD)):
            group = tuple(paired[start : start + FILES_PER_SHARD])
            yield Shard(
                name=posixpath.join(name, f"images-{number:05d}"),
                path=folder,
                bytes=sum(file.bytes for file in group),
                modified=max(file.modified for file in group),
                files=group,
            )


def read(shard: Shard) -> Iterator[Record]:
    """The records, one a file, in the order of their names; none is lost."""
    for file in shard.files:
        yield _record(file)


def _paired(files: list[ImageFile]) -> list[ImageFile]:
    """Images with their labels; a label without an image stays, to be rejected."""
    labels = {_stem(file.path): file for file in files if _extension(file.path) == _LABEL}
    used: set[str] = set()
    images = []
    for file in files:
        label = labels.get(_stem(file.path))
        if _extension(file.path) == _LABEL:
            continue
        if label:
            used.add(label.path)
        images.append(_with_label(file, label))
    alone = [file for file in labels.values() if file.path not in used]
    return sorted([*images, *alone], key=lambda file: file.path)


def _with_label(file: ImageFile, label: ImageFile | None) -> ImageFile:
    """The label counts for what the file is: a new label makes it another file."""
    if label is None:
        return file
    return replace(
        file,
        modified=max(file.modified, label.modified),
        label_path=label.path,
        label_bytes=label.bytes,
        label_generation=label.generation,
    )


def _record(file: ImageFile) -> Record:
    record = Record(posixpath.basename(file.path), b"")
    if _extension(file.path) == _LABEL:
        return record.rejected("no_image", "a label without an image of the same base name")
    if file.bytes > MAX_IMAGE_BYTES:
        return record.rejected("too_large", f"{file.bytes} bytes; at most {MAX_IMAGE_BYTES}")
    with open_shard(file.path, file.bytes, file.generation) as opened:
        image = opened.read(MAX_IMAGE_BYTES + 1)
    if len(image) != file.bytes:
        why = f"{file.bytes} bytes when listed, {len(image)} now: the file was changed meanwhile"
        return record.rejected(CONTAINER, why)
    text = None
    if file.label_path:
        with open_shard(file.label_path, file.label_bytes, file.label_generation) as opened:
            text = opened.read(MAX_LABEL_BYTES + 1)
    return labelled(Record(record.key, image), text)


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _extension(path: str) -> str:
    return posixpath.splitext(path)[1].lower()
