"""Numbers in words, the same in every receipt."""

from collections.abc import Mapping


def listed(counts: Mapping[str, int]) -> str:
    """Counts by name, as in "2 decode, 1 container"; "none" where there are none."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
