"""gs:// objects, read and written on conditions that neither Beam's nor pyarrow's filesystems know.

Every request may be made again: a write names the generation that it replaces and carries a mark
of its own, so one whose answer was lost is found to be ours, and one that comes late does nothing.
"""

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from time import monotonic, sleep

import google_crc32c
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPIError,
    NotFound,
    PreconditionFailed,
    Unauthorized,
)
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud.storage import Blob, Bucket, Client
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from policy.errors import InputError, Unavailable, shown

SCHEME = "gs://"

MARK = "adalabel-write"
"""The metadata of an object that tells one write from every other."""

TRY_SECONDS = 120.0
"""How long a request is repeated; answers 408, 429 and 5xx, lost connections and time-outs are."""

ANSWER_SECONDS = 60.0
"""How long one request waits for its answer, or for more of it."""

_FIRST_PAUSE = 0.5  # seconds, on average; then twice as long each time
_CONNECTIONS = 64  # kept for threads that ask at once
_MOST_TRIES = 10
_REFUSED = (Forbidden, Unauthorized, DefaultCredentialsError)
_BROKEN_OFF = (RequestException, DataCorruption, HTTPError)
_FAILED = (
    GoogleAPIError,
    GoogleAuthError,
    RequestException,
    DataCorruption,
    HTTPError,
    OSError,
)


@contextmanager
def asked(path: str) -> Iterator[None]:
    """Raise Unavailable where a request fails for good; what may be repeated was repeated.

    Raises InputError where access is refused. NotFound and PreconditionFailed are answers.
    """
    try:
        yield
    except (NotFound, PreconditionFailed):
        raise
    except _REFUSED as error:
        raise InputError(
            f"{shown(path)}: access refused: {shown(error)}. Log in (gcloud auth "
            "application-default login, or a worker's service account) with the role Storage "
            "Object User on the bucket (docs/gcs.md)."
        ) from error
    except _FAILED as error:
        raise Unavailable(
            f"{shown(path)}: {shown(error)}; what is done stays done. Check access to the bucket "
            "and run the same command again."
        ) from error


@cache
def client() -> Client:
    """The connections of this process, as many as threads ask at once; no project is needed."""
    made = Client(project=None)
    kept = HTTPAdapter(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS)
    made._http.mount("https://", kept)  # noqa: SLF001 - there is no public way to keep more than ten
    made._http.mount("http://", kept)  # noqa: SLF001
    return made


def how() -> dict[str, object]:
    """How every request is made: for how long it is repeated, and how long one of them may take."""
    retry = DEFAULT_RETRY.with_timeout(TRY_SECONDS).with_delay(initial=_FIRST_PAUSE)
    return {"retry": retry, "timeout": ANSWER_SECONDS}


def create(path: str, content: bytes) -> int | None:
    """Write an object unless there is one of this name; its generation, or None if others' stands.

    Ours is known to be ours also if the answer to its writing was lost.
    """
    return swap(path, content, 0)


def swap(path: str, content: bytes, generation: int) -> int | None:
    """Write an object if its generation is still this one (0: there is none), as `create` does."""
    with asked(path):
        blob = blob_of(path)
        blob.metadata = {MARK: secrets.token_hex(16)}
        try:
            blob.upload_from_string(
                content, if_generation_match=generation, checksum="crc32c", **how()
            )
            return int(blob.generation)
        except NotFound as error:
            raise _no_bucket(path) from error
        except (PreconditionFailed, *_FAILED) as error:
            if isinstance(error, _REFUSED):
                raise
            found = stat(path)  # an earlier try may have been carried out
            if found is not None and (found.metadata or {}).get(MARK) == blob.metadata[MARK]:
                return int(found.generation)
            if isinstance(error, PreconditionFailed):
                return None
            raise


def replace(path: str, content: bytes) -> None:
    """Write an object whatever there is; readers see the old or the new one, never a mix."""
    for _ in range(_MOST_TRIES):
        if swap(path, content, _generation(path)) is not None:
            return
    raise Unavailable(f"{shown(path)}: others write it all the time; end them, and run again")


def copy(path: str, final: str) -> None:
    """Copy an object inside the service, replacing what had the final name."""
    for _ in range(_MOST_TRIES):
        source, there = stat(path), stat(final)
        if source is None:
            raise Unavailable(f"{shown(path)}: is gone; run the same command again")
        if there is not None and there.crc32c == source.crc32c and there.size == source.size:
            return  # by an earlier run, or by a request whose answer was lost
        with suppress(PreconditionFailed):
            _rewrite(source, final, int(there.generation) if there else 0)
            return
    raise Unavailable(f"{shown(final)}: others write it all the time; end them, and run again")


def _rewrite(source: Blob, final: str, generation: int) -> None:
    token = None
    while True:  # a large object takes several requests
        with asked(final):
            token, _, _ = blob_of(final).rewrite(
                source, token=token, if_generation_match=generation, **how()
            )
        if token is None:
            return


def delete(path: str, generation: int | None = None) -> None:
    """Remove an object if it is there, and if one is given, of this generation."""
    with suppress(NotFound, PreconditionFailed), asked(path):
        wanted = generation or _generation(path)  # or a late request would remove its successor
        if wanted:
            blob_of(path).delete(if_generation_match=wanted, **how())


def read(path: str) -> tuple[bytes, int] | None:
    """An object and its generation; None where there is none.

    An answer that breaks off is asked for again: the client does so only for some of them, and what
    it puts together of two answers may be short.
    """
    end = monotonic() + TRY_SECONDS
    while True:
        try:
            with asked(path):
                blob = blob_of(path)
                content = blob.download_as_bytes(checksum="crc32c", **how())
                _check_whole(content, blob)
        except NotFound:
            return None
        except Unavailable as error:
            if monotonic() > end or not isinstance(error.__cause__, _BROKEN_OFF):
                raise
            sleep(_FIRST_PAUSE)
        else:
            return content, int(blob.generation)


def _check_whole(content: bytes, blob: Blob) -> None:
    """Raise DataCorruption unless the content has the checksum that came with it."""
    found = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    if blob.crc32c not in (None, found):
        raise DataCorruption(None, f"{len(content)} bytes came with another checksum than theirs")


def stat(path: str) -> Blob | None:
    """What is known of an object (size, generation, crc32c, metadata); None where there is none."""
    with asked(path):
        bucket, name = _bucket_and_name(path)
        return bucket.get_blob(name, **how())


def blob_of(path: str, generation: int | None = None) -> Blob:
    """An object, or this generation of it, before anything was asked."""
    bucket, name = _bucket_and_name(path)
    return bucket.blob(name, generation=generation)


def _generation(path: str) -> int:
    found = stat(path)
    return int(found.generation) if found else 0


def _bucket_and_name(path: str) -> tuple[Bucket, str]:
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    return client().bucket(bucket), name


def _no_bucket(path: str) -> InputError:
    bucket = path.removeprefix(SCHEME).partition("/")[0]
    return InputError(
        f"{shown(path)}: there is no bucket {shown(bucket)!r}, or it may not be seen; make it, in "
        "the region where the workers run, or correct the path"
    )
