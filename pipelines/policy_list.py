"""adalabel policy list: the versions of a registry."""

from dataclasses import dataclass

from pipelines.options import CommandOptions
from pipelines.registry import open_registry
from policy.registry import SHORT, Version, current_of, versions_of


@dataclass(frozen=True, kw_only=True)
class ListOptions(CommandOptions):
    """List the versions of a registry: dates, promises, costs, proofs, and which is CURRENT."""

    registry: str
    """The registry's folder: on this machine or in gs://."""


@dataclass(frozen=True)
class ListReceipt:
    """The versions by rising number, and the number of CURRENT, None where there is none."""

    registry: str
    current: int | None
    versions: tuple[Version, ...]

    def text(self) -> str:
        """For people."""
        if not self.versions:
            return f"{self.registry}: no registry of policies is there; the first publish makes it"
        head = ("", "version", "digest", "published (UTC)", "blessed", "metric", "cost", "promise")
        rows = [head, *(self._row(version) for version in self.versions)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "* is CURRENT; what is not blessed has no proof of its promise"])

    def _row(self, version: Version) -> tuple[str, ...]:
        return (
            "*" if version.number == self.current else "",
            str(version.number),
            version.digest[:SHORT],
            version.published[:16].replace("T", " "),
            "yes" if version.blessed else "no",
            version.metric or "-",
            "-" if version.cost is None else f"{version.cost:.4g} {version.unit}",
            version.promise or "-",
        )


def run(options: ListOptions) -> ListReceipt:
    """Read the history; raises Damaged where it is not whole."""
    registry = open_registry(options.registry)
    history = registry.history()
    current = current_of(history)
    versions = tuple(registry.placed(version) for version in versions_of(history))
    return ListReceipt(options.registry, current.number if current else None, versions)
