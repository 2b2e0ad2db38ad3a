"""Numbers in words, the same in every receipt."""

from collections.abc import Mapping

from policy.errors import shown


def listed(counts: Mapping[str, int]) -> str:
    """Counts by name, as in "2 decode, 1 container"; "none" where there are none."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def changed(before: object, now: str, rows: object, records: int) -> str:
    """What has become of a shard since it was done: only what differs of what is said of it."""
    if before == now:
        return f"holds {rows} rows, and {records} records are promised of the shard now"
    parts = str(before).split(", "), now.split(", ")
    if len(parts[0]) != len(parts[1]):
        return f"was made from {shown(before)}; now there is {shown(now)}"
    differ = [(old, new) for old, new in zip(*parts, strict=True) if old != new]
    old, new = (", ".join(shown(part) for part in side) for side in zip(*differ, strict=True))
    return f"was made from {shown(parts[0][0])}, {old}; now it is {new}"
