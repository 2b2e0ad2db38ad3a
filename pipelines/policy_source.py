"""The policy that --policy names: a folder, a registry's CURRENT, or REGISTRY@VERSION."""

from dataclasses import dataclass

from pipelines.made_by import VERSION
from pipelines.registry import open_registry
from policy.bundle import POLICY, Bundle, read_bundle
from policy.errors import InputError
from policy.files import exists
from policy.registry import Version


@dataclass(frozen=True)
class Source:
    """A policy, and its version where a registry holds it; else None."""

    bundle: Bundle
    version: Version | None

    @property
    def made_by(self) -> dict[str, str]:
        """What names the policy in whatever it makes."""
        known = {"policy": self.bundle.digest}
        return known | ({VERSION: self.version.name} if self.version else {})


def read_policy(named: str) -> Source:
    """Read the policy of a folder, of a registry (its CURRENT), or of REGISTRY@VERSION.

    VERSION is a number, the first digits of a digest, or CURRENT. Raises InputError where there is
    no such policy, and Damaged where a registry's is not what was published.
    """
    if exists(f"{named}/{POLICY}"):
        return Source(read_bundle(named), None)
    root, at, wanted = named.rpartition("@")
    if at and _is_registry(root):
        registry = open_registry(root)
        version = registry.find(wanted)
    elif _is_registry(named):
        registry = open_registry(named)
        version = registry.find("CURRENT")
    else:
        raise InputError(
            f"{named}: no {POLICY} there, and no registry of policies; make a policy with "
            "`adalabel fit --policy`, or give a registry's folder (@VERSION for another than its "
            "CURRENT)"
        )
    return Source(registry.read(version), version)


def _is_registry(root: str) -> bool:
    scheme, is_url, _ = root.partition("://")
    if is_url and scheme != "gs":
        return False
    return not open_registry(root).is_empty()
