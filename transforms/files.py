"""Reading whole small files through Beam's filesystems."""

from apache_beam.io.filesystems import FileSystems

from policy.errors import InputError


def read_bytes(path: str, what: str) -> bytes:
    """Read a whole file through Beam's filesystems; `what` names it in errors."""
    try:
        with FileSystems.open(path, compression_type="uncompressed") as file:
            return bytes(file.read())
    except Exception as error:  # Beam wraps what the filesystem said; the user needs that text
        raise InputError(f"{path}: {what} cannot be read: {error}") from error


def read_text(path: str, what: str) -> str:
    """Read a whole UTF-8 file, as `read_bytes` does."""
    try:
        return read_bytes(path, what).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {what} is not UTF-8: {error}") from error
