"""Watching for the alarm while a run goes on: workers look at the shards that are finished.

Which shards finish first may well depend on what their audits say: early exits are quick. So the
looks follow the order in which shards are *begun*, before anybody knows what they hold; and those
that are begun and not finished count as if all of their audits agreed. The evidence seen is then
never more than that of the order of beginning, which has a share of the risk of its own beside the
receipt's order of names (policy/alarm.py), whatever finishes first.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from policy.alarm import THRESHOLD, Audits, Nights, Verdict, verdict
from policy.errors import Unavailable
from policy.schema import parse_json
from transforms.commit import Output, existing
from transforms.done import read_marker
from transforms.files import exists, read_bytes

ALARM = "_alarm.json"
"""The file of an output that says that an alarm was raised there, and why."""

AFTER = "after_alarm"
"""In a shard's statistics: whether an alarm made it go through the full network alone."""

BEGUN = "_begun"
"""The folder of an output with a file for each shard that is begun, while a run goes on."""

_BEGUN = ".begun"
_COUNTS = "the counts of the run's records"

_LOG = logging.getLogger("adalabel")

LOOK_SECONDS = 10.0
_LOOKING_SHARE = 20  # a look may take a twentieth of the time

OnAlarm = Literal["warn", "full", "stop"]


@dataclass(frozen=True)
class Watch:
    """What a run is compared with, and what is done about an alarm; the same for all workers.

    `table` is None where there is nothing to compare with. `records` is the path that
    `keep_records` gave; a `fraction` of them is audited. `seconds` is the least time between two
    looks of a worker. `nights` came before (policy/alarm.py).
    """

    table: Audits | None
    on_alarm: OnAlarm
    records: str
    fraction: float
    seconds: float
    nights: Nights = None


class Watcher:
    """One worker's view of the alarm; once it is seen, it stays."""

    def __init__(self, watch: Watch, output: Output) -> None:
        """Look at the shards that are finished below `output`."""
        self.watch = watch
        self.output = output
        self._records: Mapping[str, int] = {}
        self._finished: dict[str, Audits] = {}
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

    def alarm_at(self, shard: str) -> bool:
        """Whether an alarm stands as this shard is to be read; if not, tell others it is begun."""
        if self.alarm():
            return True
        if self.watch.table is not None:
            self.output.note(f"{BEGUN}/{shard}{_BEGUN}")
        return False

    def _look(self) -> bool:
        if self.watch.table is None:
            return False
        self._records = self._records or read_records(self.watch.records)
        ours, path = self._records, self.output.path
        for name in (existing(path, ".json") & ours.keys()) - self._finished.keys():
            self._finished[name] = audits_of(read_marker(self.output, f"{name}.json") or {})
        # listed after the finished ones: who begins in between is taken to be under way
        begun = existing(f"{path}/{BEGUN}", _BEGUN) & ours.keys()
        under_way = [ours[name] for name in begun - self._finished.keys()]
        finished = list(self._finished.values())
        fraction, nights = self.watch.fraction, self.watch.nights
        found = seen_early(self.watch.table, finished, under_way, fraction, nights)
        if found.alarm:
            _LOG.warning("%s", raise_alarm(self.output, found))
        return found.alarm


def keep_records(output: Output, records: Mapping[str, int]) -> str:
    """Put down the records of each shard for the workers of a run; the path of the file."""
    return output.keep("records.json", json.dumps(dict(records)).encode())


def read_records(path: str) -> dict[str, int]:
    """The records of each shard, as `keep_records` put them down."""
    try:
        return {str(name): int(n) for name, n in json.loads(read_bytes(path, _COUNTS)).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"{path}: {_COUNTS} are damaged: {error}; run the same command again"
        ) from error


def seen_early(
    table: Audits,
    finished: Sequence[Audits],
    under_way: Sequence[int],
    fraction: float,
    nights: Nights = None,
) -> Verdict:
    """The test after finished shards, and with those under way, by records, at their best.

    Of n records, more audits than counted here are made with probability below 1e-4.
    """
    audited = sum(shard.audited for shard in finished)
    most = sum(min(n, math.ceil(fraction * n + 4 * math.sqrt(fraction * n) + 4)) for n in under_way)
    disagreed = sum(shard.disagreed for shard in finished)
    return verdict(table, [Audits(audited + most, disagreed)], nights)


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


def carry_alarm(output: Output, message: str) -> None:
    """Put an alarm of an earlier night down in the output of a new one, so that it stands there."""
    output.create(ALARM, json.dumps({"message": message}, indent=2).encode())


def read_alarm(output: Output) -> str | None:
    """The message of the alarm that stands in an output, if one does."""
    if not exists(f"{output.path}/{ALARM}"):
        return None
    found = parse_json(output.read(ALARM, "the alarm"), f"{output.path}/{ALARM}")
    return str(found.get("message")) if isinstance(found, dict) else "an alarm without a message"


def message_of(found: Verdict) -> str:
    """What was seen, in a sentence."""
    total = found.total
    rate = total.disagreed / total.audited if total.audited else 0.0
    since = f" of the last {found.nights} nights" if found.nights > 1 else ""
    return (
        f"{total.disagreed} of {total.audited} audited images ({rate:.2%}){since} disagree with "
        f"the full network; by the table at most {found.bound:.2%} would (evidence "
        f"{found.highest:.3g} to 1, alarm at {THRESHOLD:g})"
    )
