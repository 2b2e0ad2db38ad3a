"""Doing one thing with many files at once: most of the time each waits for its disk or bucket."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 16


def at_once(work: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """What `work` makes of each thing, in their order, with threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, things))
