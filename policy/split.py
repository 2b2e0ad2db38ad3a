"""Parts of a table that never share a row, chosen by a hash of the key."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def hash_of_keys(keys: Sequence[str], seed: int) -> NDArray[np.float64]:
    """[n] numbers in [0, 1) that depend on the key and the seed alone, not on order or shard."""
    salt = seed.to_bytes(8, "little", signed=True)
    hashes = (hashlib.blake2b(key.encode(), digest_size=8, key=salt).digest() for key in keys)
    return np.frombuffer(b"".join(hashes), dtype="<u8") / 2.0**64


def split(
    keys: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.intp]]:
    """Row numbers of each part; shares are fractions of the keys and must sum to 1.

    A key lands in the same part whatever else the table holds.
    """
    if not np.isclose(sum(shares.values()), 1) or min(shares.values()) < 0:
        raise ValueError(
            f"shares {dict(shares)} sum to {sum(shares.values())}; wanted 1, and none below 0"
        )
    cuts = np.cumsum(list(shares.values()))[:-1]
    part = np.searchsorted(cuts, hash_of_keys(keys, seed), side="right")
    return {name: np.flatnonzero(part == number) for number, name in enumerate(shares)}
