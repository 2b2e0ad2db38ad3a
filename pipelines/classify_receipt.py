"""What `adalabel classify` says at its end: what was promised, and what came of it."""

from dataclasses import dataclass

from pipelines.accounting import Account
from pipelines.promise import Reality
from pipelines.time_spent import time_lines
from pipelines.words import listed
from policy.bundle import Evidence
from policy.registry import Version


@dataclass(frozen=True)
class ClassifyReceipt:
    """What was promised and what came of it.

    `statuses` counts rows by status, `exits` the labelled images by the answer that labelled them.
    `cost` is the mean per image that networks ran on, in `unit`; `speedup` compares it with
    `full_cost`, that of `full` alone, and is None where nothing was run.
    `policy` is the digest that label files name, `version` that of the registry it came from, None
    for a folder. `promise` is what the policy did when it was fitted, `reality` what came of it.
    `newly_labelled` counts the records of this run, `seconds` is all of its time with start-up, and
    `images_per_second` is the rate from the first shard's start to the last one's end, and
    `time_spent` are this run's seconds of all workers by what they did.
    """

    output: str
    shards: int
    records: int
    statuses: dict[str, int]
    account: Account
    exits: dict[str, int]
    unit: str
    cost: float
    full: str
    full_cost: float
    speedup: float | None
    newly_labelled: int
    seconds: float
    images_per_second: float
    time_spent: dict[str, float]
    policy: str
    version: Version | None
    promise: Evidence | None
    reality: Reality

    def text(self) -> str:
        """For people."""
        this_run = "nothing to do, all was done before"
        if self.newly_labelled:
            this_run = (
                f"{self.newly_labelled} records in {self.seconds:.1f} s with start-up, "
                f"{self.images_per_second:.1f} images/s while labelling"
            )
        known = [f"  policy    version {self.version.name}"] if self.version else []
        lines = [
            f"{self.output}: {self.shards} shards, {self.account.text()}",
            *known,
            f"  exits     {listed(self.exits)}",
            (
                f"  realised  {self.cost:.4g} {self.unit} per image by calibrated costs; always "
                f"{self.full} {self.full_cost:.4g}"
                + (f", {self.speedup:.2f}x as much" if self.speedup else "")
            ),
            *self.reality.lines(self.cost, self.unit),
            f"  this run  {this_run}",
            *time_lines(self.time_spent),
        ]
        if self.promise:
            p = self.promise
            lines.insert(
                2 + len(known),
                f"  expected  {p.cost:.4g} {self.unit} per image, {p.metric} {p.objective} "
                f"{p.regret:.4f} (asked: {p.promise}; seen on {p.parts[p.measured_on]} images not "
                "fitted on)",
            )
        return "\n".join(lines)
