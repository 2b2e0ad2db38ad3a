"""Every record is accounted for: labelled, rejected for a reason, or a duplicate."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.words import listed
from policy.errors import TooManyBad, Unavailable, shown
from policy.rows import DUPLICATE, MOST_ERRORS, OK


@dataclass(frozen=True)
class Account:
    """What became of the records of a run: seen = labelled + rejected by reason + duplicates.

    `errors` counts the commonest distinct errors. `unaccounted` is 0, or the run has failed.
    """

    seen: int
    labelled: int
    rejected: dict[str, int]
    duplicates: int
    errors: dict[str, int]
    unaccounted: int

    @property
    def bad_fraction(self) -> float:
        """The share of the records that were rejected."""
        return sum(self.rejected.values()) / self.seen if self.seen else 0.0

    def text(self) -> str:
        """For people, one line, and one for each of the three commonest errors."""
        line = (
            f"{self.seen} records: {self.labelled} labelled, rejected: {listed(self.rejected)}, "
            f"{self.duplicates} duplicates, {self.unaccounted} unaccounted"
        )
        return "\n".join([line, *(f"    {error}" for error in self.commonest())])

    def commonest(self) -> list[str]:
        """The three commonest errors, each with how often it came."""
        found = sorted(self.errors.items(), key=lambda error: -error[1])[:3]
        return [f"{count} x {shown(error, 120)}" for error, count in found]


def account_for(statistics: Iterable[Mapping[str, Any]], records: Mapping[str, int]) -> Account:
    """Add up the statistics of shards, against the records that each of them holds.

    Raises Unavailable if a shard is missing, or has other than one row for each of its records.
    """
    rows, statuses, errors = dict[str, int](), Counter[str](), Counter[str]()
    for shard in statistics:
        rows[shard["shard"]] = sum(shard["statuses"].values())
        statuses.update(shard["statuses"])
        errors.update(shard["errors"])
    _check_rows(rows, records)
    labelled, duplicates = statuses.pop(OK, 0), statuses.pop(DUPLICATE, 0)
    seen = sum(records.values())
    unaccounted = seen - labelled - duplicates - statuses.total()
    named = dict(errors.most_common(MOST_ERRORS))
    return Account(seen, labelled, dict(statuses), duplicates, named, unaccounted)


def _check_rows(rows: Mapping[str, int], records: Mapping[str, int]) -> None:
    wrong = {name: rows.get(name) for name, count in records.items() if rows.get(name) != count}
    if wrong:
        name, found = next(iter(wrong.items()))
        lost = sum(records[shard] - (count or 0) for shard, count in wrong.items())
        raise Unavailable(
            f"{len(wrong)} shards are not fully accounted for ({lost} records), first "
            f"{shown(name)!r} with {found or 0} rows for {records[name]} records; run the same "
            "command again, and report this if it stays"
        )


def has_failed(statuses: Mapping[str, int]) -> bool:
    """Whether records were rejected, other than as duplicates."""
    return bool(statuses.keys() - {OK, DUPLICATE})


def check_bad_fraction(account: Account, most: float, output: str, rows: str) -> None:
    """Raise TooManyBad if more of the records than this share were rejected.

    `rows` is where the rows lie that say why.
    """
    if account.bad_fraction > most:
        bad = sum(account.rejected.values())
        raise TooManyBad(
            f"{output}: {bad} of {account.seen} records were rejected ({listed(account.rejected)}),"
            f" {account.bad_fraction:.1%}; allowed is --max-bad-fraction {most:g}. Commonest: "
            f"{'; '.join(account.commonest())}. So there is no manifest, and a result that stood "
            f"before is as it was; all rows, with status and error, are in {rows}. Mend the shards "
            "and run again, or allow more."
        )
