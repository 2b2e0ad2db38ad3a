"""Reading gzip files forward, with a limit on what they may grow to."""

import gzip
import io
from typing import BinaryIO

from transforms.shards.limits import FREE_INFLATION_BYTES, MAX_INFLATION

_STEP = 1 << 20


class Inflated:
    """The content of a gzip file; gzip's own checks (CRC, length) run at its end.

    Raises ValueError once more comes out than MAX_INFLATION allows for what went in. Seeks only
    forward: backward would mean to inflate again, which no reader here needs.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.compressed = file
        self.inflated = gzip.GzipFile(fileobj=file, mode="rb")

    def tell(self) -> int:
        """Bytes inflated so far."""
        return self.inflated.tell()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, fewer only at the end."""
        parts = []
        while size > 0:
            part = self.inflated.read(min(size, _STEP))
            if not part:
                break
            self._check()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go forward to a position, or to the end if that comes before."""
        if whence != io.SEEK_SET or offset < self.tell():
            raise ValueError(f"gzip: cannot go back to byte {offset}")
        while self.tell() < offset and self.inflated.read(min(_STEP, offset - self.tell())):
            self._check()
        return self.tell()

    def _check(self) -> None:
        allowed = FREE_INFLATION_BYTES + MAX_INFLATION * self.compressed.tell()
        if self.tell() > allowed:
            raise ValueError(
                f"gzip: inflates to more than {MAX_INFLATION} times its size, as a bomb does"
            )
