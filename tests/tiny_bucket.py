"""A bucket in memory that keeps generations as gs:// does: the few calls that adalabel makes."""

import threading
from dataclasses import dataclass, field

from google.api_core.exceptions import NotFound, PreconditionFailed


@dataclass
class TinyBucket:
    """Objects, their generations and metadata by path.

    Stands in for a client, its bucket and a blob of it at once.
    """

    objects: dict[str, tuple[bytes, int, dict[str, str]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    generations: int = 0

    def bucket(self, name: str) -> "TinyBucket":
        del name
        return self

    def blob(self, name: str, generation: int | None = None) -> "TinyBlob":
        return TinyBlob(self, name, generation)

    def get_blob(self, name: str, **_: object) -> "TinyBlob | None":
        found = self.objects.get(name)
        if found is None:
            return None
        content, generation, metadata = found
        return TinyBlob(self, name, generation, metadata, len(content), str(hash(content)))

    def write(self, name: str, content: bytes, wanted: int, metadata: dict[str, str]) -> int:
        with self.lock:
            _, found, _ = self.objects.get(name, (b"", 0, {}))
            if found != wanted:
                raise PreconditionFailed(name)
            self.generations += 1
            self.objects[name] = (content, self.generations, metadata)
            return self.generations


@dataclass
class TinyBlob:
    """One object."""

    inside: TinyBucket
    name: str
    generation: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    size: int = 0
    crc32c: str | None = None

    def upload_from_string(
        self, content: bytes, *, if_generation_match: int, checksum: str, **_: object
    ) -> None:
        assert checksum == "crc32c"
        self.generation = self.inside.write(
            self.name, content, if_generation_match, dict(self.metadata)
        )

    def download_as_bytes(self, *, checksum: str, **_: object) -> bytes:
        assert checksum == "crc32c"
        if self.name not in self.inside.objects:
            raise NotFound(self.name)
        content, self.generation, _ = self.inside.objects[self.name]
        return content

    def rewrite(
        self, source: "TinyBlob", *, token: str | None, if_generation_match: int, **_: object
    ) -> tuple[str | None, int, int]:
        """In two requests, as the service does with large objects."""
        content, _, metadata = self.inside.objects[source.name]
        if token is None:
            return "more", len(content) // 2, len(content)
        self.inside.write(self.name, content, if_generation_match, metadata)
        return None, len(content), len(content)

    def delete(self, *, if_generation_match: int, **_: object) -> None:
        with self.inside.lock:
            found = self.inside.objects.get(self.name)
            if found is None:
                raise NotFound(self.name)
            if if_generation_match != found[1]:
                raise PreconditionFailed(self.name)
            del self.inside.objects[self.name]
