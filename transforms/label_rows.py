"""Labelling step: what a router decides becomes rows, and rows the files of a shard."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from policy.columns import compact
from policy.rows import OK, table_bytes
from transforms.collect import Blocks
from transforms.commit import Output
from transforms.doing import here
from transforms.done import Says, commit_shard, done_before
from transforms.label_table import Labels, audits_of, label_table, statistics_of
from transforms.prepare import Prepared
from transforms.route import Router
from transforms.routed import Routed
from transforms.shard_loop import Placed
from transforms.shards import Shard
from transforms.watch import AFTER, Watcher


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
        all_later = {**router.later, **(full.inputs if full else {})}
        self.later = {name: spec for name, spec in all_later.items() if name not in self.inputs}
        self.names = pa.array(router.engine.class_names, pa.string())
        self._routers: dict[str, Router] = {}
        self._fed = router

    def begin(self, shard: Shard) -> bool:
        """Look for an alarm: after one, shards go through the full network, or are not begun."""
        self._routers[shard.name] = self.router
        if self.guard is None or not self.guard.watcher.alarm_at(shard.name):
            return True
        if self.guard.full is not None:
            self._routers[shard.name] = self.guard.full
        return self.guard.watcher.watch.on_alarm != "stop"

    def take(self, item: Prepared) -> Iterator[Placed]:
        """Route one image; others may come out with it.

        Nothing waits in one router while another is fed, which may be for all that is left.
        """
        router = self._routers.get(item.shard, self.router)
        if router is not self._fed:
            yield from self._place(self._fed.flush())
            self._fed = router
        yield from self._place(router.feed(item))

    def flush(self) -> Iterator[Placed]:
        """Route all that is waiting."""
        yield from self._place(self._fed.flush())

    def reject(self, item: Prepared) -> Labels:
        """A row without a label."""
        return Labels([item.key], status=item.status, error=item.error)

    def done(self, shard: Shard) -> Says | None:
        """The statistics of a shard that is done."""
        return done_before(self.output, f"{shard.name}.json", self._origin(shard))

    def write(self, shard: Shard, blocks: Blocks[Labels], started: float) -> Says:
        """Write the shard's rows, then its statistics, which mark it done."""
        audits = audits_of(blocks)
        table = label_table(blocks, audits, self.names)
        after = self._routers.pop(shard.name, self.router) is not self.router
        says = self._origin(shard) | statistics_of(shard.name, table, audits) | {AFTER: after}
        files = {f"{shard.name}.parquet": table_bytes(table, says)}
        times = {"started": started, "finished": time.time(), "seconds": here().take()}
        return commit_shard(self.output, f"{shard.name}.json", files, says, times)

    def _origin(self, shard: Shard) -> dict[str, Any]:
        return {"made_by": self.made_by, "input": shard.identity}

    def _place(self, groups: Iterable[Routed]) -> Iterator[Placed]:
        for group in groups:
            yield group.items, _rows(group)


def _rows(group: Routed) -> Labels:
    """The rows of images that left the network together; keeps nothing else of them."""
    answers = group.answers if group.status == OK else None
    return Labels(
        [item.key for item in group.items],
        group.trail,
        group.cost,
        compact(answers) if answers else None,
        group.status,
        group.error,
        group.audits,
    )
