"""gs:// objects written on a condition, which neither Beam's nor pyarrow's filesystems can do."""

from contextlib import suppress
from functools import cache

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.cloud.storage import Blob, Client
from requests.exceptions import RequestException

SCHEME = "gs://"

FAILED = (GoogleAPIError, RequestException, OSError)
"""What is raised when a request fails for good; the client repeats those that may be repeated."""


@cache
def client() -> Client:
    """The connection of this process."""
    return Client()


def create(path: str, content: bytes) -> bool:
    """Write an object unless there is one of this name; returns whether ours was written.

    A retry after a lost response finds what the first try wrote, and is told that it stands.
    """
    try:
        _blob(path).upload_from_string(content, if_generation_match=0, checksum="crc32c")
    except PreconditionFailed:
        return False
    return True


def replace(path: str, content: bytes) -> None:
    """Write an object whatever there is; readers see the old or the new one, never a mix."""
    _blob(path).upload_from_string(content, checksum="crc32c")


def swap(path: str, content: bytes, generation: int) -> bool:
    """Write an object if its generation is still this one; returns whether it was."""
    try:
        _blob(path).upload_from_string(content, if_generation_match=generation, checksum="crc32c")
    except PreconditionFailed:
        return False
    return True


def copy(path: str, final: str) -> None:
    """Copy an object inside the service, replacing what had the final name."""
    token = None
    while True:  # a large object takes several requests
        token, _, _ = _blob(final).rewrite(_blob(path), token=token)
        if token is None:
            return


def delete(path: str) -> None:
    """Remove an object if it is there."""
    with suppress(NotFound):
        _blob(path).delete()


def read(path: str) -> tuple[bytes, int] | None:
    """An object and its generation; None where there is none."""
    blob = _blob(path)
    try:
        content = blob.download_as_bytes(checksum="crc32c")
    except NotFound:
        return None
    return content, int(blob.generation)


def _blob(path: str) -> Blob:
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    return client().bucket(bucket).blob(name)
