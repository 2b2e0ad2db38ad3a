"""gs:// objects written on a condition, which neither Beam's nor pyarrow's filesystems can do."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Blob, Client
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from policy.errors import Unavailable, shown

SCHEME = "gs://"

_FAILED = (GoogleAPIError, GoogleAuthError, RequestException, OSError)


@contextmanager
def _asked(path: str) -> Iterator[None]:
    """Raise Unavailable where a request fails for good; what may be repeated was repeated."""
    try:
        yield
    except (NotFound, PreconditionFailed):
        raise
    except _FAILED as error:
        raise Unavailable(
            f"{shown(path)}: {shown(error)}; what is done stays done. Check access to the bucket "
            "and run the same command again."
        ) from error


@cache
def client() -> Client:
    """The connection of this process."""
    return Client()


def create(path: str, content: bytes) -> bool:
    """Write an object unless there is one of this name; returns whether ours was written.

    A retry after a lost response finds what the first try wrote, and is told that it stands.
    """
    try:
        with _asked(path):
            _blob(path).upload_from_string(content, if_generation_match=0, checksum="crc32c")
    except PreconditionFailed:
        return False
    return True


def replace(path: str, content: bytes) -> None:
    """Write an object whatever there is; readers see the old or the new one, never a mix."""
    with _asked(path):  # either content is whole, so it may be written twice
        _blob(path).upload_from_string(content, checksum="crc32c", retry=DEFAULT_RETRY)


def swap(path: str, content: bytes, generation: int) -> bool:
    """Write an object if its generation is still this one; returns whether it was."""
    try:
        with _asked(path):
            _blob(path).upload_from_string(
                content, if_generation_match=generation, checksum="crc32c"
            )
    except PreconditionFailed:
        return False
    return True


def copy(path: str, final: str) -> None:
    """Copy an object inside the service, replacing what had the final name."""
    token = None
    while True:  # a large object takes several requests
        with _asked(final):
            token, _, _ = _blob(final).rewrite(_blob(path), token=token)
        if token is None:
            return


def delete(path: str, generation: int | None = None) -> None:
    """Remove an object if it is there, and if one is given, of this generation."""
    with suppress(NotFound, PreconditionFailed), _asked(path):
        _blob(path).delete(if_generation_match=generation)


def read(path: str) -> tuple[bytes, int] | None:
    """An object and its generation; None where there is none."""
    blob = _blob(path)
    try:
        with _asked(path):
            content = blob.download_as_bytes(checksum="crc32c")
    except NotFound:
        return None
    return content, int(blob.generation)


def _blob(path: str) -> Blob:
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    return client().bucket(bucket).blob(name)
