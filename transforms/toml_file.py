"""TOML files that a user writes, whose paths are relative to the file's own folder, or gs://."""

import posixpath
import tomllib
from pathlib import Path
from typing import Any

from policy.errors import InputError, shown
from transforms.files import read_text


def read_toml(path: str, what: str) -> tuple[dict[str, Any], str]:
    """The fields of a file, and the folder that its paths start from; raises InputError."""
    text = read_text(path, what)
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError, or numbers of many digits
        raise InputError(f"{path}: not valid TOML: {shown(error)}") from error
    return fields, posixpath.dirname(path if "://" in path else str(Path(path).absolute()))


def at(folder: str, path: str) -> str:
    """A path of such a file, from this folder."""
    return path if "://" in path else posixpath.join(folder, path)
