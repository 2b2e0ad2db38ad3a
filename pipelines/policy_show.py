"""adalabel policy show: one version of a registry, checked, with its history."""

from dataclasses import dataclass

from pipelines.options import CommandOptions
from pipelines.registry import open_registry
from policy.bundle import Evidence
from policy.errors import shown
from policy.registry import Entry, Version, current_of, find, versions_of


@dataclass(frozen=True, kw_only=True)
class ShowOptions(CommandOptions):
    """Show a version of a registry, after checking that its files are what was published."""

    registry: str
    """The registry's folder: on this machine or in gs://."""
    version: str = "CURRENT"
    """Which version: its number, the first digits of its digest, or CURRENT."""


@dataclass(frozen=True)
class ShowReceipt:
    """A version, whether it is CURRENT, what is known of it, and each step that was taken with it.

    `steps` are oldest first; `evidence` is None for a policy without any.
    """

    registry: str
    version: Version
    is_current: bool
    files: dict[str, int]
    networks: dict[str, str]
    evidence: Evidence | None
    steps: tuple[Entry, ...]

    def text(self) -> str:
        """For people."""
        version = self.version
        files = ", ".join(f"{name} ({size} bytes)" for name, size in self.files.items())
        cost = ""
        if version.cost is not None and version.full_cost is not None:
            cost = (
                f"{version.cost:.4g} {version.unit} per image (full network "
                f"{version.full_cost:.4g}), "
            )
        return "\n".join(
            [
                f"version {version.number}{', CURRENT' if self.is_current else ''}",
                f"  digest    {version.digest}",
                f"  policy    {version.policy} in label files",
                f"  folder    {version.folder}",
                f"  files     {files}, as they were published",
                f"  networks  {', '.join(f'{n} {made}' for n, made in self.networks.items())}",
                f"  promise   {version.promise or 'none'}",
                f"  blessed   {'yes' if version.blessed else 'no'}: {version.proof}",
                f"  method    {version.method or '-'}: {cost}metric {version.metric or '-'}",
                "  history",
                *(f"    {_said(step)}" for step in self.steps),
            ]
        )


def _said(step: Entry) -> str:
    reached = step.current is not None and step.current.number == step.subject.number
    became = "is CURRENT" if reached else "is stored"
    why = f": {shown(step.why)}" if step.why else ""
    return f"{step.when}  {step.action} by {shown(step.by, 40)}, {became}{why}"


def run(options: ShowOptions) -> ShowReceipt:
    """Read one version; raises Damaged if its files are not what was published."""
    registry = open_registry(options.registry)
    history = registry.history()
    current = current_of(history)
    version = find(versions_of(history), options.version, current, registry.root)
    bundle = registry.read(version)
    return ShowReceipt(
        registry=options.registry,
        version=registry.placed(version),
        is_current=version == current,
        files={name: len(content) for name, content in registry.files(version).items()},
        networks=bundle.fingerprints,
        evidence=bundle.evidence,
        steps=tuple(step for step in history if step.subject.number == version.number),
    )
