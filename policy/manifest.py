"""What a finished output holds: each of its files, how long it is, and its SHA-256.

The manifest is written last and replaced as a whole. Who reads the files that it names, and no
others, sees one result: never half of one, and never parts of two.
"""

import hashlib
from dataclasses import field
from typing import Literal

from pydantic.dataclasses import dataclass

from policy.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class WrittenFile:
    """A file of an output. `at` is where it lies below the output, if not at its own place."""

    bytes: int
    sha256: str
    at: str | None = None


def written(content: bytes) -> WrittenFile:
    """What a manifest says of a file with this content."""
    return WrittenFile(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True, config=STRICT)
class LabelsManifest:
    """What a folder of labels holds.

    `made_by` names what decides the labels, such as the policy's digest. `shards` gives the records
    of each shard by name, `inputs` what each was made from; `files` are by path below the folder.
    """

    version: Literal[1]
    made_by: dict[str, str]
    shards: dict[str, int]
    inputs: dict[str, str]
    files: dict[str, WrittenFile] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class MadeIn:
    """What the labels of a night are made by, and the policy's number in the registry."""

    made_by: dict[str, str]
    policy_version: int


@dataclass(frozen=True, config=STRICT)
class NightsManifest(LabelsManifest):
    """What stands of the labels of many nights: for each shard, those of one of them.

    `nights` names those that still have labels here, `night_of` that of each shard. All files lie
    below `at`; what they superseded is not named.
    """

    nights: dict[str, MadeIn] = field(kw_only=True)
    night_of: dict[str, str] = field(kw_only=True)
