"""Whether what a refit has fitted takes the place of the policy in use, and why (not)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipelines.fit import FitOptions
from pipelines.held_out import compare_on_new, why_not_comparable
from policy.bundle import Bundle, FittedOn
from policy.compare import Comparison
from policy.registry import why_not_blessed


@dataclass(frozen=True)
class Decision:
    """Whether to use a candidate, why, and by which comparison; None where there was none."""

    promote: bool
    reason: str
    comparison: Comparison | None = None


def fitted_on(bundle: Bundle) -> FittedOn | None:
    """What a policy was fitted on, if it says so."""
    return bundle.evidence.fitted_on if bundle.evidence else None


def shards_of(bundle: Bundle | None) -> Mapping[str, str]:
    """The shards that a policy was fitted on, as far as it says so; see FittedOn."""
    known = fitted_on(bundle) if bundle else None
    return known.shards if known else {}


def decide(
    bundles: tuple[Bundle, Bundle | None], new_shards: Collection[str], options: FitOptions
) -> Decision:
    """Whether a candidate, the first of `bundles`, is better than the policy in use, the other.

    `new_shards` are those that the latter was not fitted on as they are now; `options` are those
    that the candidate was fitted with.
    """
    candidate, in_use = bundles
    blocked = why_not_blessed(candidate)
    if blocked:
        return Decision(promote=False, reason=blocked)
    if in_use is None:
        return Decision(promote=True, reason="no policy was in use, and its loss is proved")
    unlike = _why_not_compared(candidate, in_use, new_shards, options.table)
    if unlike:
        return Decision(promote=False, reason=unlike)
    unseen = set(new_shards) - shards_of(in_use).keys()  # not those that have only changed
    found = compare_on_new((candidate, in_use), unseen, options)
    if found is None:
        return Decision(
            promote=False,
            reason=f"no image of the {len(unseen)} new shards is labelled and held out; label more",
        )
    return Decision(promote=found.better, reason=found.reason, comparison=found)


def _why_not_compared(
    candidate: Bundle, in_use: Bundle, new_shards: Collection[str], table: str
) -> str | None:
    """Why two policies cannot be compared on the new shards, or need not be; None if they can."""
    if candidate.digest == in_use.digest:
        return "it decides just as the policy in use does"
    seen = shards_of(in_use)
    if not seen:
        return (
            "the policy in use does not say which shards it was fitted on, so no image is known to "
            "be new to it; look at the report, and publish the new one by hand"
        )
    if seen.keys() >= set(new_shards):
        return (
            f"the {len(new_shards)} new shards have the names of shards that the policy in use was "
            "fitted on, so it may have seen their images; add shards of other names"
        )
    return why_not_comparable(in_use, table)
