"""The records of a shard, whatever its format: counted, made unique, and held to their promise."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from policy.errors import shown
from policy.rows import DUPLICATE
from transforms.files import escaped, matched
from transforms.shards import image_files
from transforms.shards.match import format_of
from transforms.shards.record import CONTAINER, Record
from transforms.shards.shard import Promise, Shard
from transforms.shards.source import ReadFailed, open_shard

_BLOCK_BYTES = 1 << 20


def count_records(shard: Shard) -> int:
    """The records of a shard, without reading its images; with a promise, those it promises."""
    if shard.promise:
        return shard.promise.records
    if shard.files:
        return len(shard.files)
    with open_shard(shard.path, shard.bytes, shard.generation) as file:
        return int(format_of(shard.path).count(file))


def read_records(shard: Shard) -> Iterator[Record]:
    """The records of a shard in order, keys made unique across shards as <shard>/<member>.

    A member key seen again in the shard gives a record rejected as "duplicate". What cannot be read
    of a damaged container gives one last record rejected as "container". A shard with a promise
    (of a manifest) gives as many records as promised, unless it promises none and holds some.

    Raises ReadFailed if the file was changed meanwhile, so that nobody labels parts of two.
    """
    records = _records(shard)
    if shard.promise:
        records = _kept(records, shard.promise, sha256_of(shard))
    seen: set[str] = set()
    for record in records:
        named = replace(record, key=f"{shard.name}/{record.key}")
        if named.key in seen:
            why = "this key came before in the same shard"
            if named.status == "no_image":
                why = f"{why}; members of one key must be consecutive: {named.error}"
            named = named.rejected(DUPLICATE, why)
        seen.add(named.key)
        yield named
    _check_unchanged(shard)


def _check_unchanged(shard: Shard) -> None:
    """Plain image files are checked one by one as they are read, and what has a generation cannot
    change: no other is read.
    """
    if shard.files or shard.generation:
        return
    sizes = [(file.bytes, file.modified) for file in matched(escaped(shard.path))]
    if sizes != [(shard.bytes, shard.modified)]:
        raise ReadFailed(
            f"{shown(shard.path)}: changed while it was read: it had {shard.bytes} bytes of "
            f"{shard.modified:.3f}, now there is {sizes or 'nothing'}"
        )


def sha256_of(shard: Shard) -> str:
    """The SHA-256 of the shard's bytes, or of those of its files one after the other."""
    digest = hashlib.sha256()
    parts = [
        part
        for file in shard.files
        for part in (
            (file.path, file.bytes, file.generation),
            (file.label_path, file.label_bytes, file.label_generation),
        )
    ]
    for path, size, generation in parts or [(shard.path, shard.bytes, shard.generation)]:
        if path is None:
            continue
        with open_shard(path, size, generation) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _records(shard: Shard) -> Iterator[Record]:
    if shard.files:
        yield from image_files.read(shard)
        return
    with open_shard(shard.path, shard.bytes, shard.generation) as file:
        yield from format_of(shard.path).read(file)


def _kept(records: Iterator[Record], promise: Promise, sha256: str) -> Iterator[Record]:
    """As many records as were promised; none with an image if the shard's bytes are others.

    Of a shard with more, the last promised record says so and is rejected: it is the one row that
    can. A shard that promises none and holds some gives that row beyond its promise.
    """
    other = None
    if sha256 != promise.sha256:
        other = f"the shard's SHA-256 is {sha256}, its manifest says {promise.sha256}"
    number = 0
    held: Record | None = None
    for number, record in enumerate(records, start=1):
        if number > max(1, promise.records) or promise.records == 0:
            why = f"the shard holds more than the {promise.records} records of its manifest"
            yield (held or record).rejected(CONTAINER, f"{why}; this and the rest are left out")
            return
        if held:
            yield held
        held = record.rejected(CONTAINER, other) if other else record
    if held:
        yield held
    for missing in range(number, promise.records):
        why = other or f"the shard ends after {number} of the {promise.records} records promised"
        yield Record(f"#missing-{missing}", b"").rejected(CONTAINER, why)
