"""Watching for the alarm while a run goes on: workers look at the shards that are finished.

The looks follow the order in which shards finish, the receipt that of their names; each order has a
share of the risk of its own (policy/alarm.py). Looks are sums over growing sets of shards, so any
worker may make them, and none has to see what another saw. They count as one order only as far as
what the audits say does not decide which shard finishes first.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from apache_beam.io.filesystems import FileSystems

from policy.alarm import THRESHOLD, Audits, Verdict, verdict
from policy.schema import parse_json
from transforms.commit import Output, existing
from transforms.done import read_marker

ALARM = "_alarm.json"
"""The file of an output that says that an alarm was raised there, and why."""

AFTER = "after_alarm"
"""In a shard's statistics: whether an alarm made it go through the full network alone."""

_LOG = logging.getLogger("adalabel")

LOOK_SECONDS = 10.0
_LOOKING_SHARE = 20  # a look may take a twentieth of the time

OnAlarm = Literal["warn", "full", "stop"]


@dataclass(frozen=True)
class Watch:
    """What a run is compared with, and what is done about an alarm; the same for all workers.

    `table` is None where there is nothing to compare with. `shards` are those of the run, `seconds`
    the least time between two looks of a worker.
    """

    table: Audits | None
    on_alarm: OnAlarm
    shards: frozenset[str]
    seconds: float


class Watcher:
    """One worker's view of the alarm; once it is seen, it stays."""

    def __init__(self, watch: Watch, output: Output) -> None:
        """Look at the shards that are finished below `output`."""
        self.watch = watch
        self.output = output
        self._looks: list[Audits] = []
        self._known: set[str] = set()
        self._next = 0.0
        self._seen = False

    def alarm(self) -> bool:
        """Whether an alarm stands; looks again if the last look was long enough ago."""
        start = time.monotonic()
        if not self._seen and start >= self._next:
            self._seen = read_alarm(self.output) is not None or self._look()
            took = time.monotonic() - start
            self._next = start + max(self.watch.seconds, _LOOKING_SHARE * took)
        return self._seen

    def _look(self) -> bool:
        if self.watch.table is None:
            return False
        there = existing(self.output.path, ".json") & self.watch.shards
        new = [read_marker(self.output, f"{name}.json") for name in there - self._known]
        self._known |= there
        counts = [audits_of(marker) for marker in new if marker]
        audited = sum(found.audited for found in counts)
        self._looks.append(Audits(audited, sum(found.disagreed for found in counts)))
        found = verdict(self.watch.table, self._looks)
        if found.alarm:
            _LOG.warning("%s", raise_alarm(self.output, found))
        return found.alarm


def audits_of(statistics: Mapping[str, Any]) -> Audits:
    """What a shard's audits say of the policy: nothing where it was labelled without one."""
    if statistics.get(AFTER):
        return Audits(0, 0)
    return Audits(statistics.get("audited", 0), statistics.get("disagreed", 0))


def raise_alarm(output: Output, found: Verdict) -> str:
    """Put the alarm down in the output, unless one stands there; the message that stands."""
    says = {"message": message_of(found), **asdict(found)}
    output.create(ALARM, json.dumps(says, indent=2).encode())
    return read_alarm(output) or message_of(found)


def read_alarm(output: Output) -> str | None:
    """The message of the alarm that stands in an output, if one does."""
    if not FileSystems.exists(f"{output.path}/{ALARM}"):
        return None
    found = parse_json(output.read(ALARM, "the alarm"), f"{output.path}/{ALARM}")
    return str(found.get("message")) if isinstance(found, dict) else "an alarm without a message"


def message_of(found: Verdict) -> str:
    """What was seen, in a sentence."""
    total = found.total
    rate = total.disagreed / total.audited if total.audited else 0.0
    return (
        f"{total.disagreed} of {total.audited} audited images ({rate:.2%}) disagree with the full "
        f"network; by the table at most {found.bound:.2%} would (evidence "
        f"{found.highest:.3g} to 1, alarm at {THRESHOLD:g})"
    )
