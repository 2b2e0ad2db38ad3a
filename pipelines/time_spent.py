"""Where the time of a run's workers went: what each shard's statistics say, added up."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_LEAST = 0.005


def time_spent(statistics: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of all workers together by what they did (transforms/doing.py), the most first.

    One after the other they are the time of a worker from its first shard to its last.
    """
    spent = Counter[str]()
    for shard in statistics:
        spent.update(shard.get("seconds", {}))
    return dict(spent.most_common())


def time_lines(spent: Mapping[str, float]) -> list[str]:
    """The same for people, in a line if there is something to tell."""
    total = sum(spent.values())
    if not total:
        return []
    shares = {what: seconds / total for what, seconds in spent.items()}
    told = [f"{share:.0%} {what}" for what, share in shares.items() if share >= _LEAST]
    return [f"  time      {', '.join(told)} of {total:.1f} worker seconds"]
