"""adalabel policy publish: store a policy in a registry, and label with it from now on."""

from dataclasses import dataclass

from pipelines.options import CommandOptions
from pipelines.promote import Wish, publish
from pipelines.registry import open_registry
from policy.errors import InputError
from policy.registry import Version


@dataclass(frozen=True, kw_only=True)
class PublishOptions(CommandOptions):
    """Store a policy in a registry and make it CURRENT, if its loss is proved and it is new."""

    registry: str
    """The registry's folder: on this machine or in gs://; made where missing."""
    policy: str
    """The policy's folder, made by `adalabel fit`; or one below REGISTRY/bundles."""
    force: bool = False
    """Make it CURRENT even without a certificate, or if it is older than CURRENT; the history says
    so."""
    why: str = ""
    """What the history is to say of the reason."""


@dataclass(frozen=True)
class PublishReceipt:
    """The version that is CURRENT now, and what was before; `forced` overruled a refusal."""

    registry: str
    version: Version
    before: Version | None
    forced: bool

    def text(self) -> str:
        """For people."""
        if self.before == self.version:
            return f"{self.registry}: version {self.version.name} is CURRENT already"
        was = f"was version {self.before.name}" if self.before else "there was none"
        how = "by force" if self.forced else f"promise: {self.version.promise}"
        return f"{self.registry}: CURRENT is version {self.version.name} now ({was}); {how}"


def run(options: PublishOptions) -> PublishReceipt:
    """Publish; raises InputError, with the reason, if the policy is stored and not promoted."""
    wish = Wish(force=options.force, why=options.why)
    outcome = publish(open_registry(options.registry), options.policy, wish)
    if not outcome.promoted:
        raise InputError(
            f"{options.registry}: {options.policy} is stored as version {outcome.version.name}, "
            f"and CURRENT stays what it was: {outcome.refused}. --force makes it CURRENT all the "
            "same, and the history says so."
        )
    return PublishReceipt(options.registry, outcome.version, outcome.before, outcome.forced)
