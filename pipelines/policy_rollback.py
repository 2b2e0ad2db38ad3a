"""adalabel policy rollback: label with an earlier policy of a registry again."""

from dataclasses import dataclass

from pipelines.options import CommandOptions
from pipelines.promote import rollback
from pipelines.registry import open_registry
from policy.registry import Version


@dataclass(frozen=True, kw_only=True)
class RollbackOptions(CommandOptions):
    """Make CURRENT of a registry what it was before, or an earlier version; the history stays."""

    registry: str
    """The registry's folder: on this machine or in gs://."""
    to: str | None = None
    """A version that was CURRENT: its number or the first digits of its digest; without it, the one
    that CURRENT took the place of."""
    why: str = ""
    """What the history is to say of the reason."""


@dataclass(frozen=True)
class RollbackReceipt:
    """The version that is CURRENT now, and what was before."""

    registry: str
    version: Version
    before: Version | None

    def text(self) -> str:
        """For people."""
        if self.before == self.version:
            return f"{self.registry}: version {self.version.name} is CURRENT already"
        was = f" (was version {self.before.name})" if self.before else ""
        return f"{self.registry}: CURRENT is version {self.version.name} again{was}"


def run(options: RollbackOptions) -> RollbackReceipt:
    """Go back; raises InputError where there is nothing to go back to."""
    outcome = rollback(open_registry(options.registry), options.to, options.why)
    return RollbackReceipt(options.registry, outcome.version, outcome.before)
