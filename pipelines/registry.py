"""A registry of policies: what is published there, what is CURRENT, and reading it checked.

    registry = open_registry("gs://bucket/policies")
    version = registry.current()             # None where nothing was promoted yet
    bundle = registry.read(version)          # or read_bundle(version.folder), unchecked

Publishing and rolling back are in pipelines/promote.py.
"""

import os
import secrets
from dataclasses import dataclass, replace

from pipelines.lease import this_machine
from policy.bundle import HEADS, POLICY, REPORT, Bundle, bundle_of
from policy.errors import Damaged, InputError, shown
from policy.registry import (
    Entry,
    Version,
    current_of,
    digest_of,
    entries_of,
    entry_of,
    find,
    versions_of,
)
from transforms.at_once import at_once
from transforms.chain import HISTORY, Chain, step_name
from transforms.commit import Output

FILES = (POLICY, HEADS, REPORT)
"""All that a bundle's folder holds; the heads and the report may be missing."""


@dataclass(frozen=True)
class Registry:
    """A folder of this machine or in gs:// with bundles, their history and CURRENT.

    Everything raises Damaged on files that are not what they were, and Unavailable or OSError where
    they cannot be read.
    """

    root: str

    def is_empty(self) -> bool:
        """Whether nothing was ever published there."""
        return self.chain("").newest()[1] is None

    def current(self) -> Version | None:
        """What to label with now; None where nothing was promoted yet."""
        step, content = self.chain("").newest()
        if content is None:
            return None
        version = entry_of(content, f"{self.root}/{step_name(step)}").current
        return version and self.placed(version)

    def history(self) -> tuple[Entry, ...]:
        """All that happened, oldest first."""
        chain = self.chain("")
        newest, _ = chain.newest()
        names = [step_name(step) for step in range(1, newest + 1)]
        contents = at_once(chain.read, names)
        for name, content in zip(names, contents, strict=True):
            if content is None:
                raise Damaged(f"{self.root}/{name}: is missing; restore it from a copy")
        where = f"{self.root}/{HISTORY}"
        return entries_of([content for content in contents if content is not None], where)

    def versions(self) -> tuple[Version, ...]:
        """All that were published, by rising number."""
        return tuple(self.placed(version) for version in versions_of(self.history()))

    def find(self, named: str) -> Version:
        """The version of a number, of the first digits of a digest, or CURRENT.

        Raises InputError where there is none.
        """
        entries = self.history()
        return self.placed(find(versions_of(entries), named, current_of(entries), self.root))

    def read(self, version: Version) -> Bundle:
        """A version's policy; raises Damaged unless its files are those that were published."""
        return bundle_of(self.files(version), f"{self.root}/bundles/{version.digest}")

    def files(self, version: Version) -> dict[str, bytes]:
        """A version's files by name, checked against its digest."""
        folder, chain = f"bundles/{version.digest}", self.chain("")
        found = {name: chain.read(f"{folder}/{name}") for name in FILES}
        files = {name: content for name, content in found.items() if content is not None}
        if digest_of(files) != version.digest:
            raise Damaged(
                f"{self.root}/{folder}: {', '.join(files) or 'nothing'} there is not what was "
                f"published as version {version.number}; it was changed or damaged. Restore the "
                "folder, or remove it and publish the same policy again."
            )
        return files

    def chain(self, run: str) -> Chain:
        """Where steps are read and, by a named run, made."""
        return Chain(Output(self.root, run))

    def placed(self, version: Version) -> Version:
        """A version with the whole path of its folder, which the history does not know."""
        return replace(version, folder=f"{self.root}/bundles/{version.digest}")


def open_registry(root: str) -> Registry:
    """The registry of a folder, which may still be empty; raises InputError on other places."""
    scheme, is_url, _ = root.partition("://")
    if is_url and scheme != "gs":
        raise InputError(
            f"{shown(root)}: no place for a registry of policies; wanted a folder of this machine "
            "or gs://, where a file can be created on the condition that it is not there"
        )
    return Registry(root.rstrip("/") or "/")


def name_of_run() -> str:
    """A name like that of no other process, `host.pid.random`."""
    return f"{this_machine()}.{os.getpid()}.{secrets.token_hex(8)}"
