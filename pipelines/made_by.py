"""What an output says that it is made by, so that results of two makings never meet in one."""

from collections.abc import Mapping
from typing import Any

from policy.errors import InputError
from policy.files import exists
from policy.schema import parse_json
from transforms.commit import RUN, Output

VERSION = "policy version"
"""What an output says of the version of a registry that its policy is, if it is one."""

NIGHTS = {"made by": "adalabel nightly"}


def is_of_nights(place: Output) -> bool:
    """Whether a folder is that of `adalabel nightly`."""
    return (said_of(place) or {}).get("made_by") == NIGHTS


def refuse_nights(place: Output) -> None:
    """Raise InputError where only `adalabel nightly` writes."""
    if is_of_nights(place):
        raise InputError(
            f"{place.root}: holds the labels of many nights, and only `adalabel nightly` writes "
            "there; choose another --output"
        )


def said_of(output: Output) -> dict[str, Any] | None:
    """What an output says of itself, or what is being made for it; None where it says nothing."""
    path = f"{output.path}/{RUN}"
    if not exists(path):
        return None
    found = parse_json(output.read(RUN, "what the folder says of itself"), path)
    if not isinstance(found, dict) or not isinstance(found.get("made_by"), dict):
        raise InputError(
            f"{path}: does not say what the folder was made by; if it is adalabel's, from before "
            "version 0.2, choose another --output"
        )
    return found


def check_made_by(root: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise InputError, naming what differs, if results of two makings would meet in one output."""
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{root}: was made with {name} {found.get(name)}, this run has {wanted.get(name)}; "
                f"{_hint(found, wanted)}choose another --output, or replace all of it with --mode "
                "overwrite"
            )


def _hint(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What to do where only the registry's CURRENT has moved since the output was begun."""
    before, now = found.get(VERSION), wanted.get(VERSION)
    if before is None or now is None or before == now:
        return ""
    return (
        f"it was begun with version {before} of a registry, and --policy names version {now}: "
        "CURRENT has moved, or another was named. To go on with the one it was begun with, give "
        f"--policy REGISTRY@{before.partition(' ')[0]}; or "
    )
