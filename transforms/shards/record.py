"""One record of a shard, as every format reads it."""

from dataclasses import dataclass, replace

from policy.errors import shown
from policy.rows import OK
from transforms.shards.limits import MAX_LABEL_BYTES

CONTAINER = "container"
"""The status of records that were lost because their shard is damaged."""

_MAX_LABEL_DIGITS = 9


@dataclass(frozen=True)
class Record:
    """An encoded image and its label, or the reason why there is none.

    `label` is None where the shard gives none, and `label_error` says so if what it gives is no
    class index. `status` is OK or the reason for which the record is rejected; `error` says more.
    """

    key: str
    image: bytes
    label: int | None = None
    label_error: str | None = None
    status: str = OK
    error: str | None = None

    def rejected(self, status: str, error: str) -> "Record":
        """The same record without its image, rejected for this reason, which is made safe."""
        return replace(self, image=b"", status=status, error=shown(error))


def labelled(record: Record, text: bytes | None) -> Record:
    """The record with its label read from decimal text; None leaves it unlabelled.

    Digits are those of ASCII: of bytes, `isdigit` knows no others.
    """
    if text is None:
        return record
    digits = text[: MAX_LABEL_BYTES + 1].strip()
    if not digits.isdigit() or len(digits) > _MAX_LABEL_DIGITS or len(text) > MAX_LABEL_BYTES:
        return replace(record, label_error=f"label {text[:40]!r} is not a class index")
    return replace(record, label=int(digits))
