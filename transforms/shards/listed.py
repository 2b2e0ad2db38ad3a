"""The list of a run's shards: a file, so that no pipeline grows with them. A line each, of JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from policy.errors import Unavailable
from transforms.files import read_bytes
from transforms.shards.shard import ImageFile, Promise, Shard


def listed(shards: Iterable[Shard]) -> bytes:
    """What a list of these shards holds; all that is known of each."""
    return b"".join(json.dumps(asdict(shard)).encode() + b"\n" for shard in shards)


def read_list(path: str) -> Iterator[Shard]:
    """The shards of a list, in its order.

    Raises InputError if it cannot be read, and Unavailable if it is not what was written.
    """
    for number, line in enumerate(read_bytes(path, "the run's list of shards").splitlines(), 1):
        try:
            yield _shard(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise Unavailable(
                f"{path}: line {number} of the run's list of shards is damaged: {error}; run the "
                "same command again, with the same version of adalabel on workers as here"
            ) from error


def _shard(files: list[Any], promise: dict[str, Any] | None, **fields: Any) -> Shard:  # noqa: ANN401
    return Shard(
        **fields,
        files=tuple(ImageFile(**file) for file in files),
        promise=Promise(**promise) if promise else None,
    )
