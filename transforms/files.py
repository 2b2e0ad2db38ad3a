"""Reading whole small files through Beam's filesystems."""

from apache_beam.io.filesystems import FileSystems

from policy.errors import InputError, shown
from policy.schema import MOST_BYTES


def read_bytes(path: str, what: str, most: int | None = None) -> bytes:
    """Read a whole file through Beam's filesystems; `what` names it in errors.

    No more than `most` bytes are read, and a file that has more is refused.
    """
    try:
        with FileSystems.open(path, compression_type="uncompressed") as file:
            content = bytes(file.read() if most is None else file.read(most + 1))
    except Exception as error:  # Beam wraps what the filesystem said; the user needs that text
        if "Unable to get filesystem" in str(error):  # which asks for a package
            raise InputError(
                f"{shown(path)}: {what} cannot be read from there; wanted a path on this machine, "
                "gs:// or s3://"
            ) from error
        raise InputError(f"{path}: {what} cannot be read: {error}") from error
    if most is not None and len(content) > most:
        raise InputError(f"{path}: {what} has more than {most} bytes; is it another file?")
    return content


def read_text(path: str, what: str) -> str:
    """Read a whole UTF-8 file of at most MOST_BYTES, as `read_bytes` does."""
    try:
        return read_bytes(path, what, MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {what} is not UTF-8: {error}") from error
