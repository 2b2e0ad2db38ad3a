"""Whole small files, on this machine or on any filesystem that pyarrow knows (gs://, s3://)."""

import errno
import os
import secrets
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from policy.errors import InputError, Unavailable, shown

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""How a filesystem says that it has no hard links; there, two writers may replace each other."""


_EMULATOR = "STORAGE_EMULATOR_HOST"
"""What Google's own clients know an emulator of gs:// by, as http://host:port; pyarrow does not."""

TRY_SECONDS = 120
"""How long a request to gs:// is repeated; pyarrow's own choice would be a quarter of an hour."""

_NO_ANSWER = ("google::cloud::Status(", "closed file")
"""What pyarrow says of a Parquet file in gs:// after it gave up, at once or at the next read."""

_WRONG = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""What a filesystem says of a path that is wrong; anything else may be mended by trying again."""


def filesystem_of(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path, and the path there; raises InputError if there is none for it."""
    if "://" not in path:
        return pafs.LocalFileSystem(), str(Path(path).absolute())  # a colon would make it a URL
    if path.startswith("gs://"):
        return _google(), path.removeprefix("gs://")
    try:
        filesystem, inner = pafs.FileSystem.from_uri(quote(path, safe=":/"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{shown(path)}: not a place that can be read and written; wanted a path on this "
            "machine, or one that starts with gs:// or s3://"
        ) from error
    return filesystem, inner


def _google() -> pafs.FileSystem:
    """The filesystem of gs://, or of its emulator, which asks for no credentials."""
    patience = timedelta(seconds=TRY_SECONDS)
    scheme, _, host = os.environ.get(_EMULATOR, "").rpartition("://")
    if not host:
        return pafs.GcsFileSystem(retry_time_limit=patience)
    return pafs.GcsFileSystem(
        anonymous=True, scheme=scheme, endpoint_override=host, retry_time_limit=patience
    )


def exists(path: str) -> bool:
    """Whether there is a file of this name; Unavailable where its filesystem does not say."""
    filesystem, inner = filesystem_of(path)
    try:
        return bool(filesystem.get_file_info(inner).type == pafs.FileType.File)
    except OSError as error:
        raise _failed(path, "cannot be looked for", error) from error


def read_bytes(path: str, what: str, most: int | None = None) -> bytes:
    """All of a file; raises InputError if it cannot be read. `what` names it there.

    A file of more than `most` bytes is refused before it is read. Unavailable where a filesystem
    beyond this machine fails.
    """
    filesystem, inner = filesystem_of(path)
    try:
        with filesystem.open_input_stream(inner) as stream:
            content = bytes(stream.read() if most is None else stream.read(most + 1))
    except OSError as error:
        raise _failed(path, f"{what} cannot be read", error) from error
    if most is not None and len(content) > most:
        raise InputError(f"{path}: {what} has more than {most} bytes; is it another file?")
    return content


def write_bytes(path: str, content: bytes) -> None:
    """Write a file that appears complete or not at all, in a folder that is made where missing.

    So it is here and in object stores; a filesystem between the two shows a file in the making.
    """
    if "://" in path:
        filesystem, inner = filesystem_of(path)
        try:
            if not path.startswith("gs://"):  # which has no folders, and would keep a mark of each
                filesystem.create_dir(inner.rpartition("/")[0], recursive=True)
            with filesystem.open_output_stream(inner) as stream:
                stream.write(content)
        except OSError as error:
            raise _failed(path, "cannot be written", error) from error
        return
    final = Path(path)
    place(content, final.with_name(f".{final.name}.{secrets.token_hex(8)}"), final)


def place(content: bytes, attempt: Path, final: Path, *, replace: bool = True) -> bool:
    """Write a local file under the name `attempt`, then give it its final name; both on one disk.

    The final name shows nothing, what was there before, or all of the content, also after a loss of
    power. Without `replace`, a file that stands is left alone; returns whether ours stands now.
    """
    for folder in (attempt.parent, final.parent):
        _make_folder(folder)
    try:
        with attempt.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        ours = _named(attempt, final, replace=replace)
    except OSError as error:
        attempt.unlink(missing_ok=True)  # half a file on a full disk helps nobody
        raise _named_after(final, error) from error
    sync_folder(final.parent)
    return ours


def place_copy(source: Path, attempt: Path, final: Path) -> None:
    """Give a local file a second name, replacing what had it; as safe as `place`, without copying.

    Where the filesystem has no hard links, it is copied.
    """
    for folder in (attempt.parent, final.parent):
        _make_folder(folder)
    try:
        os.link(source, attempt)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise _named_after(final, error) from error
        place(source.read_bytes(), attempt, final)
        return
    attempt.rename(final)
    attempt.unlink(missing_ok=True)  # rename leaves it where both are one file already
    sync_folder(final.parent)


def _failed(path: str, what: str, error: Exception) -> InputError | Unavailable:
    """The error for the user: of the path that was given, or of a filesystem that failed."""
    if "://" not in path or isinstance(error, _WRONG):
        return InputError(f"{path}: {what}: {error}")
    return Unavailable(f"{shown(path)}: {what}: {shown(error)}. Run the same command again.")


def damaged(path: str, error: Exception) -> InputError | Unavailable:
    """The error for a file of a table that cannot be read; not its own fault if a bucket failed."""
    said = any(words in str(error) for words in _NO_ANSWER)
    if path.startswith("gs://") and said and not isinstance(error, _WRONG):
        return _failed(path, "cannot be read", error)
    return InputError(f"{path}: cannot be read: {shown(error)}. Extract it again.")


def _named_after(path: Path, error: OSError) -> OSError:
    """The same error, naming the file that somebody wanted."""
    return type(error)(error.errno, error.strerror, str(path))


def _named(attempt: Path, final: Path, *, replace: bool) -> bool:
    if replace:
        attempt.rename(final)
        return True
    try:
        os.link(attempt, final)  # unlike rename, it fails where a file stands
    except FileExistsError:
        attempt.unlink()
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if final.exists():
            attempt.unlink()
            return False
        attempt.rename(final)
        return True
    attempt.unlink()
    return True


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each so that it outlasts a loss of power."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk; an OSError names it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise _named_after(folder, error) from error
    finally:
        os.close(handle)


def delete(path: str) -> None:
    """Remove a file if it is there."""
    filesystem, inner = filesystem_of(path)
    if exists(path):
        filesystem.delete_file(inner)
