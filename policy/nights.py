"""What is known of the nights of a job: a record of each, and what they say of a policy."""

from collections.abc import Sequence
from typing import Literal

from pydantic.dataclasses import dataclass

from policy.alarm import Audits
from policy.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class NightPlan:
    """A night that is begun: what it labels, by name with its identity, and with which policy.

    `policy` is the digest of the bundle that is version `policy_version` of the registry.
    `made_by` is all that decides the labels, `begun` a time in UTC (ISO 8601).
    """

    version: Literal[1]
    night: str
    begun: str
    policy: str
    policy_version: int
    made_by: dict[str, str]
    shards: dict[str, str]


@dataclass(frozen=True, config=STRICT)
class NightRecord:
    """What came of a night, or of a part of it that was stopped and is gone on with by the next.

    `night` is None where none was begun; `closed` where nothing more is to be done for it.
    `new`, `late` and `rewritten` shards were labelled; `left` changed while they were read,
    `waiting` were not begun after an alarm. Of the labelled ones: `records`, the mean `cost` per
    image in `unit` against `full_cost` of always the full network, and `audited` images of which
    `disagreed`. `bound` is the most that the policy promised, `evidence` that against it over all
    of its nights.
    """

    night: str | None
    began: str
    seconds: float
    exit_code: int
    message: str
    closed: bool = True
    policy: str | None = None
    policy_version: int | None = None
    resumed: bool = False
    new: int = 0
    late: int = 0
    rewritten: int = 0
    left: int = 0
    waiting: int = 0
    records: int = 0
    labelled: int = 0
    rejected: int = 0
    cost: float = 0.0
    full_cost: float = 0.0
    unit: str = ""
    audited: int = 0
    disagreed: int = 0
    bound: float | None = None
    evidence: float | None = None
    alarm: str | None = None

    @property
    def shards(self) -> int:
        """How many were labelled."""
        return self.new + self.late + self.rewritten

    def line(self) -> str:
        """One line for a log."""
        parts = [f"{self.began} {self.night or '-'}: exit {self.exit_code}"]
        if self.policy_version is not None:
            parts.append(f"policy {self.policy_version}")
        if self.shards:
            parts.append(
                f"{self.shards} shards ({self.new} new, {self.late} late, {self.rewritten} "
                f"rewritten), {self.records} records, {self.labelled} labelled, {self.rejected} "
                f"rejected, {self.cost:.4g} {self.unit} per image (full network "
                f"{self.full_cost:.4g})"
            )
        if self.audited:
            parts.append(f"{self.disagreed} of {self.audited} audits disagree")
        counts = (("left for the next night", self.left), ("not begun", self.waiting))
        parts += [f"{count} shards {what}" for what, count in counts if count]
        if self.resumed:
            parts.append("resumed")
        return "; ".join([*parts, self.message])


@dataclass(frozen=True, config=STRICT)
class History:
    """The records of all nights, oldest first."""

    version: Literal[1]
    nights: tuple[NightRecord, ...] = ()

    def last(self, night: str) -> NightRecord | None:
        """The last record of a night."""
        return next((found for found in reversed(self.nights) if found.night == night), None)

    def audits(self, policy: str) -> tuple[Audits, ...]:
        """What each closed night has seen of a policy, by its digest, oldest first."""
        return tuple(
            Audits(found.audited, found.disagreed)
            for found in self.nights
            if found.policy == policy and found.closed and found.audited
        )

    def alarm(self, policy: str) -> str | None:
        """The alarm that stands against a policy: the first that any night has raised."""
        return next(
            (found.alarm for found in self.nights if found.policy == policy and found.alarm), None
        )


def exit_code_of(records: Sequence[NightRecord]) -> int:
    """That of a call: of its last night that was not simply done."""
    return next((found.exit_code for found in reversed(records) if found.exit_code), 0)
