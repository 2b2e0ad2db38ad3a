"""What a command would do: shards, stages, and what it would take in time, hours and money."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipelines.job_graph import JobGraph
from pipelines.pricing import Quote
from transforms.shards import Shard

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@dataclass(frozen=True)
class Todo:
    """What there is to do. `done` shards were done before; `changed` have changed since they were.

    `refused` is the message with which a run would be refused; None where it would begin.
    """

    shards: int
    records: int
    bytes: int
    done: int
    changed: int
    refused: str | None = None

    @classmethod
    def of(
        cls,
        records: Mapping[Shard, int],
        to_do: Iterable[Shard],
        changed: int,
        refused: str | None = None,
    ) -> "Todo":
        """Count; `records` are those of each shard of the input, `to_do` some of these shards."""
        some = tuple(to_do)
        return cls(
            shards=len(some),
            records=sum(records[shard] for shard in some),
            bytes=sum(shard.bytes for shard in some),
            done=len(records) - len(some),
            changed=changed,
            refused=refused,
        )


@dataclass(frozen=True)
class DryRun:
    """What a command would do and what that would take, the first of `quotes` as it was asked.

    `stages` is the share of the images that each stage runs for. `device` is what the quotes are
    in hours of. `load_seconds` is what loading the networks took here, which each worker does once.
    `beam_args` are the flags that Beam would get, and `job` describes the job on a cluster; None on
    this machine.
    """

    command: str
    output: str
    todo: Todo
    stages: dict[str, float]
    unit: str
    quotes: tuple[Quote, ...]
    device: str
    load_seconds: float
    assumed: tuple[str, ...]
    warnings: tuple[str, ...]
    beam_args: tuple[str, ...]
    job: JobGraph | None = None

    def text(self) -> str:
        """For people."""
        t = self.todo
        share = ", ".join(f"{name} {part:.0%}" for name, part in self.stages.items())
        lines = [
            f"{self.output}: dry run of {self.command}; nothing was run, nothing was written",
            f"  shards    {t.shards} to do, {t.done} done before, {t.changed} changed since then",
            f"  to do     {t.records} records, {t.bytes / 1e6:.1f} MB",
            *([f"  refused   {t.refused}"] if t.refused else []),
            f"  stages    {share or 'not known'}",
            *self._table(),
            f"  start-up  not in these: loading the networks took {self.load_seconds:.1f} s here",
            *(f"  assumed   {one}" for one in self.assumed),
            *(f"  warning   {one}" for one in self.warnings),
            *([self.job.text()] if self.job else []),
        ]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        """A line for each quote; columns of which nothing is known are left out."""
        head = ["", f"{self.unit}/image", "loses", "time", "hours", "USD"]
        rows = [_cells(quote) for quote in self.quotes]
        kept = [column for column in range(len(head)) if not column or any(r[column] for r in rows)]
        table = [[row[column] for column in kept] for row in (head, *rows)]
        wide = [max(len(row[column]) for row in table) for column in range(len(kept))]
        lines = [
            "  ".join([row[0].ljust(wide[0]), *map(str.rjust, row[1:], wide[1:])]) for row in table
        ]
        hours = [f"  hours     of {self.device}"] if any(row[4] for row in rows) else []
        return [f"    {line.rstrip()}" for line in lines] + hours


def _cells(quote: Quote) -> list[str]:
    return [
        quote.name,
        f"{quote.cost:.4g}",
        "" if quote.loses is None else f"{quote.loses:.2%}",
        "" if quote.seconds is None else duration(quote.seconds),
        "" if quote.device_hours is None else f"{quote.device_hours:.3g}",
        "" if quote.usd is None else _money(quote.usd),
    ]


def _money(usd: float) -> str:
    return f"{usd:,.2f}" if usd >= 1 else f"{usd:.2g}"


def duration(seconds: float) -> str:
    """Seconds in the unit in which a person would say them."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.1f} days"
