"""What a worker's thread is doing, and for how long: at any moment it does exactly one thing.

    with doing(DECODE):
        ...

Seconds go to what is innermost, so that they sum up to the clock's. They are those of the thread
that reads shards and runs networks: reading and decoding count while it waits for them. Like a
log, this is found by the thread and not handed through every call.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

READ = "read"
DECODE = "decode"
RESIZE = "resize"
COPY = "copy"
POLICY = "policy"
COMMIT = "commit"
OTHER = "other"
IDLE = "idle"
"""Between shards: waiting for the runner."""


def of_stage(name: str) -> str:
    """Running a stage."""
    return f"stage {name}"


class Budget:
    """Seconds of one thread, by what it was doing."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start idle."""
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._doing = [IDLE]
        self._since = clock()

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """Do this until it is left; what was being done before waits meanwhile."""
        self._note()
        self._doing.append(what)
        try:
            yield
        finally:
            self._note()
            self._doing.pop()

    @contextmanager
    def waiting_for(self, what: str, parts: Callable[[], Mapping[str, float]]) -> Iterator[None]:
        """Wait until it is left for others, who did `parts`: by name, so many of their seconds.

        The time of waiting is divided in these proportions; with none, it goes to `what`.
        """
        self._note()
        try:
            yield
        finally:
            start, self._since = self._since, self._clock()
            theirs = {name: seconds for name, seconds in parts().items() if seconds > 0}
            theirs = theirs or {what: 1.0}
            share = (self._since - start) / sum(theirs.values())
            for name, seconds in theirs.items():
                self._add(name, seconds * share)

    def take(self) -> dict[str, float]:
        """Seconds since the last `take`, by what they were spent on."""
        self._note()
        taken, self._seconds = self._seconds, {}
        return taken

    def _note(self) -> None:
        now = self._clock()
        if now > self._since:
            self._add(self._doing[-1], now - self._since)
        self._since = now

    def _add(self, what: str, seconds: float) -> None:
        self._seconds[what] = self._seconds.get(what, 0.0) + seconds


class _Here(threading.local):
    def __init__(self) -> None:
        self.budget = Budget()


_HERE = _Here()


def use(budget: Budget) -> None:
    """Count what this thread does in this budget from now on."""
    _HERE.budget = budget


def here() -> Budget:
    """The budget of this thread."""
    return _HERE.budget


def doing(what: str) -> AbstractContextManager[None]:
    """Count this thread's time under this name, until it is left."""
    return _HERE.budget.at(what)
