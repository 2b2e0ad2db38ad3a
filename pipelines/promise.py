"""Promise against reality: what a run's audits and its shares say of the policy's evidence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from policy.alarm import THRESHOLD, Audits, Nights, Verdict, verdict
from policy.bounds import clopper_pearson
from policy.bundle import Bundle
from policy.drift import Drift, drift
from policy.errors import shown
from policy.losses import Metric
from policy.reference import Reference
from policy.rows import NONFINITE, OK
from transforms.watch import AFTER, audits_of

_RISK = 0.05  # of the interval around the rate, both sides together


@dataclass(frozen=True)
class Reality:
    """How the labels of these shards compare with what was promised, by `metric`.

    `audited` images were compared with the full network and `disagreed` with it, a `rate` with a
    95 % interval from `low` to `high`; for `failed` it had no answer. `bound` is the most that the
    table promised, `evidence` and `highest` that against it (policy/alarm.py), now and at its
    height, with that of `earlier` nights; None for a policy without a reference.
    `alarm` is the message of the alarm that stands, if one does. `exits` and `classes` compare
    shares with the table's. `audit_cost` is the mean per image that networks ran on, on top of the
    receipt's cost. `after_alarm` counts shards that were labelled by the full network alone;
    `not_begun` those that were left, with `records_not_begun`.
    """

    metric: str
    audited: int
    disagreed: int
    failed: int
    rate: float | None
    low: float
    high: float
    bound: float | None
    evidence: float | None
    highest: float | None
    earlier: int
    alarm: str | None
    exits: Drift | None
    classes: Drift | None
    audit_cost: float
    after_alarm: int
    not_begun: int
    records_not_begun: int

    def lines(self, cost: float, unit: str) -> list[str]:
        """For people; `cost` is the receipt's."""
        found = [f"  audit     {self._audit()}"]
        if self.audited or self.failed:
            found.append(
                f"            costs {self.audit_cost:.4g} {unit} per image, with it "
                f"{cost + self.audit_cost:.4g}"
            )
        for what, moved in (("exits", self.exits), ("classes", self.classes)):
            if moved:
                found.append(f"  {what:9} {_drift_text(moved)}")
        if self.alarm:
            found.append(f"  ALARM     {self.alarm}")
        if self.after_alarm:
            found.append(
                f"            {self.after_alarm} shards went through the full network alone"
            )
        if self.not_begun:
            found.append(
                f"            not begun after the alarm: {self.not_begun} shards, "
                f"{self.records_not_begun} records"
            )
        return found

    def _audit(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        if self.rate is None:
            return f"no image was compared with the full network{failed}"
        text = (
            f"{self.disagreed} of {self.audited} images disagree with the full network by "
            f"{self.metric}: {self.rate:.2%} ({self.low:.2%} to {self.high:.2%}){failed}"
        )
        if self.bound is None:
            return f"{text}; nothing to compare with: fit again"
        earlier = f" with {self.earlier} earlier nights" if self.earlier else ""
        return (
            f"{text}; promised at most {self.bound:.2%}, evidence against it{earlier} "
            f"{self.evidence:.3g}, highest {self.highest:.3g} (alarm at {THRESHOLD:g})"
        )


def reality(
    bundle: Bundle, statistics: Mapping[str, Mapping[str, Any]], nights: Nights = None
) -> tuple[Reality, Verdict | None]:
    """Compare shards, by name, with a bundle's reference, if it has one.

    The verdict takes the shards in the order of their names, after what earlier `nights` saw.
    Shards labelled after an alarm say nothing of the policy, and count in no comparison.
    """
    shards = [audits_of(found) for _, found in sorted(statistics.items())]
    own = [found for found in statistics.values() if not found.get(AFTER)]
    known = bundle.evidence.reference if bundle.evidence else None
    found = verdict(table_of(known), shards, nights) if known else None
    total = Audits(sum(s.audited for s in shards), sum(s.disagreed for s in shards))
    ran = sum(
        shard["statuses"].get(status, 0)
        for shard in statistics.values()
        for status in (OK, NONFINITE)
    )
    cost = sum(shard.get("audit_cost", 0.0) for shard in own)
    compared = Reality(
        metric=metric_of(bundle),
        audited=total.audited,
        disagreed=total.disagreed,
        failed=sum(shard.get("audit_failed", 0) for shard in own),
        rate=total.disagreed / total.audited if total.audited else None,
        low=_low(total),
        high=clopper_pearson(total.disagreed, total.audited, _RISK / 2),
        bound=found.bound if found else None,
        evidence=found.evidence if found else None,
        highest=found.highest if found else None,
        earlier=len(nights or ()),
        alarm=None,
        exits=drift(known.exits, _summed(own, "exits")) if known else None,
        classes=_named(drift(known.classes, _summed(own, "predicted")), bundle) if known else None,
        audit_cost=cost / ran if ran else 0.0,
        after_alarm=len(statistics) - len(own),
        not_begun=0,
        records_not_begun=0,
    )
    return compared, found


def table_of(known: Reference) -> Audits:
    """The table's side of the test."""
    return Audits(known.images, known.disagreed)


def metric_of(bundle: Bundle) -> Metric:
    """What counts as wrong: what the reference was measured by, or the label itself."""
    known = bundle.evidence is not None and bundle.evidence.reference is not None
    return bundle.evidence.metric if bundle.evidence and known else "top1"


def _low(total: Audits) -> float:
    """The lower end of the interval, by the upper one of the complement."""
    agreed = total.audited - total.disagreed
    return 1 - clopper_pearson(agreed, total.audited, _RISK / 2)


def _summed(statistics: Sequence[Mapping[str, Any]], what: str) -> Counter[str]:
    counts = Counter[str]()
    for shard in statistics:
        counts.update(shard.get(what, {}))
    return counts


def _named(found: Drift | None, bundle: Bundle) -> Drift | None:
    """The drift of classes with their names for their numbers."""
    if found is None:
        return None
    names = bundle.class_names
    return replace(found, moved=tuple((names[int(n)], change) for n, change in found.moved))


def _drift_text(found: Drift) -> str:
    moved = ", ".join(f"{shown(name, 40)} {change:+.1%}" for name, change in found.moved if change)
    sign = "more than" if found.drifted else "within"
    return (
        f"{found.distance:.1%} of the images moved from the table, {sign} the "
        f"{found.noise:.1%} of chance{f': {moved}' if moved else ''}"
    )
