"""The rows and statistics of a labelled shard: what a router decides, as it is written."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policy.answers import Answers
from policy.rows import LABELS_SCHEMA, OK, account, parquet_bytes
from transforms.commit import Output
from transforms.doing import here
from transforms.done import Says, commit_shard, done_before
from transforms.prepare import Prepared
from transforms.route import Router
from transforms.routed import Compared, Routed
from transforms.shards import Shard
from transforms.watch import AFTER, Watcher
from transforms.work import Placed, Row


@dataclass(frozen=True)
class Guard:
    """Who watches for the alarm, and what labels shards begun after it (None: what did before)."""

    watcher: Watcher
    full: Router | None = None


class LabelStep:
    """Routes images and turns what comes out of the router into label rows."""

    def __init__(
        self,
        router: Router,
        output: Output,
        made_by: Mapping[str, str],
        guard: Guard | None = None,
    ) -> None:
        """Write to `output`; `made_by` names all that decides the labels, but for an alarm."""
        self.router = router
        self.output = output
        self.made_by = dict(made_by)
        self.guard = guard
        self.inputs = router.inputs
        full = guard.full if guard else None
        self.keeps_images = router.keeps_images or (
            full is not None and not full.inputs.keys() <= router.inputs.keys()
        )
        self.names = router.engine.class_names
        self._routers: dict[str, Router] = {}

    def begin(self, shard: Shard) -> bool:
        """Look for an alarm: after one, shards go through the full network, or are not begun."""
        self._routers[shard.name] = self.router
        if self.guard is None or not self.guard.watcher.alarm_at(shard.name):
            return True
        if self.guard.full is not None:
            self._routers[shard.name] = self.guard.full
        return self.guard.watcher.watch.on_alarm != "stop"

    def take(self, item: Prepared) -> Iterator[Placed]:
        """Route one image; others may come out with it."""
        yield from self._place(self._routers.get(item.shard, self.router).feed(item))

    def flush(self) -> Iterator[Placed]:
        """Route all that is waiting."""
        yield from self._place(self.router.flush())
        if self.guard and self.guard.full:
            yield from self._place(self.guard.full.flush())

    def reject(self, item: Prepared) -> Row:
        """A row without a label."""
        return {"key": item.key, "status": item.status, "error": item.error}

    def done(self, shard: Shard) -> Says | None:
        """The statistics of a shard that is done."""
        return done_before(self.output, f"{shard.name}.json", self._origin(shard))

    def write(self, shard: Shard, rows: list[Row], started: float) -> Says:
        """Write the shard's rows, then its statistics, which mark it done."""
        after = self._routers.pop(shard.name, self.router) is not self.router
        says = self._origin(shard) | statistics_of(shard.name, rows) | {AFTER: after}
        files = {f"{shard.name}.parquet": parquet_bytes(rows, LABELS_SCHEMA, says)}
        times = {"started": started, "finished": time.time(), "seconds": here().take()}
        return commit_shard(self.output, f"{shard.name}.json", files, says, times)

    def _origin(self, shard: Shard) -> dict[str, Any]:
        return {"made_by": self.made_by, "input": shard.identity}

    def _place(self, groups: Iterable[Routed]) -> Iterator[Placed]:
        for group in groups:
            yield from (
                self._rejected(group)
                if group.answers is None or group.status != OK
                else (self._rows(group, group.answers))
            )

    def _rows(self, group: Routed, answers: Answers) -> Iterator[Placed]:
        for row, item in enumerate(group.items):
            best, compared = int(answers.classes[row, 0]), group.audits.get(row)
            yield (
                item,
                {
                    "key": item.key,
                    "label": best,
                    "name": self.names[best],
                    "classes": answers.classes[row],
                    "probabilities": answers.probabilities[row],
                    "answer": group.trail[-1],
                    "trail": list(group.trail),
                    "cost": group.cost,
                    "status": OK,
                    **(_audit_of(compared) if compared else {}),
                },
            )

    def _rejected(self, group: Routed) -> Iterator[Placed]:
        for item in group.items:
            yield (
                item,
                {
                    "key": item.key,
                    "trail": list(group.trail),
                    "cost": group.cost,
                    "status": group.status,
                    "error": group.error,
                },
            )


def _audit_of(found: Compared) -> Row:
    """What an audit adds to a row; its cost goes into the statistics alone."""
    wrong = None if found.full is None else found.disagrees
    return {"audit": found.full, "disagrees": wrong, "audit_cost": found.cost}


def statistics_of(shard: str, rows: list[Row]) -> dict[str, Any]:
    """Counts of a shard's rows by status, answer and class, and what they cost in total.

    `audited` counts the images compared with the full network, `audit_failed` those that could not
    be, and `audit_cost` is what both cost beyond `cost`.
    """
    audits = [row["audit"] for row in rows if "audit" in row]
    return {
        "shard": shard,
        **account(rows),
        "exits": dict(Counter(row["answer"] for row in rows if row["status"] == OK)),
        "got": dict(Counter(answer for row in rows for answer in row.get("trail", ()))),
        "cost": sum(row.get("cost", 0.0) for row in rows),
        "predicted": dict(Counter(str(row["label"]) for row in rows if row["status"] == OK)),
        "audited": sum(full is not None for full in audits),
        "disagreed": sum(bool(row.get("disagrees")) for row in rows),
        "audit_failed": audits.count(None),
        "audit_cost": sum(row.get("audit_cost", 0.0) for row in rows),
    }
