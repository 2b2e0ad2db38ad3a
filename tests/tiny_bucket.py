"""A bucket in memory that keeps generations as gs:// does: the few calls that adalabel makes."""

import threading
from dataclasses import dataclass, field

from google.api_core.exceptions import NotFound, PreconditionFailed


@dataclass
class TinyBucket:
    """Objects and their generations by path, and how many requests were made of each kind.

    Stands in for a client, its bucket and a blob of it at once. `fail_after_success` names kinds of
    request whose next response is lost although the request was carried out.
    """

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    generations: int = 0

    def bucket(self, name: str) -> "TinyBucket":
        del name
        return self

    def blob(self, name: str) -> "TinyBlob":
        return TinyBlob(self, name)


@dataclass
class TinyBlob:
    """One object."""

    inside: TinyBucket
    name: str
    generation: int | None = None

    def upload_from_string(
        self,
        content: bytes,
        *,
        if_generation_match: int | None = None,
        checksum: str,
        retry: object = None,
    ) -> None:
        del retry
        assert checksum == "crc32c"
        with self.inside.lock:
            _, found = self.inside.objects.get(self.name, (b"", 0))
            if if_generation_match is not None and found != if_generation_match:
                raise PreconditionFailed(self.name)
            self.inside.generations += 1
            self.inside.objects[self.name] = (content, self.inside.generations)

    def download_as_bytes(self, *, checksum: str) -> bytes:
        assert checksum == "crc32c"
        if self.name not in self.inside.objects:
            raise NotFound(self.name)
        content, self.generation = self.inside.objects[self.name]
        return content

    def rewrite(self, source: "TinyBlob", token: str | None = None) -> tuple[str | None, int, int]:
        """In two requests, as the service does with large objects."""
        content, _ = self.inside.objects[source.name]
        if token is None:
            return "more", len(content) // 2, len(content)
        self.upload_from_string(content, checksum="crc32c")
        return None, len(content), len(content)

    def delete(self, *, if_generation_match: int | None) -> None:
        found = self.inside.objects.get(self.name)
        if found and if_generation_match not in (None, found[1]):
            raise PreconditionFailed(self.name)
        if self.inside.objects.pop(self.name, None) is None:
            raise NotFound(self.name)
