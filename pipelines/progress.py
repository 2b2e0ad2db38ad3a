"""How far a run is: a bar on a terminal, plain lines in a log."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from tqdm import tqdm

from policy.errors import Unavailable

_LOG = logging.getLogger("adalabel")

POLL_SECONDS = 0.5
LINE_SECONDS = 30.0
_LISTING_SHARE = 20  # a listing may take a twentieth of the time


@contextmanager
def progress(what: str, records: Mapping[str, int], done: Callable[[], set[str]]) -> Iterator[None]:
    """Show progress while the body runs, by the records of the shards that are done.

    `records` counts those of each shard that is to be done; `done` lists the shards whose output
    stands, so it is right for any runner and any number of workers.
    """
    stop = threading.Event()
    total = sum(records.values())
    quiet = not sys.stderr.isatty()
    # smoothing 0: shards finish in bursts, only the mean rate since the start says when all is done
    bar = tqdm(total=total, desc=what, unit=" images", disable=quiet, smoothing=0)
    show = threading.Thread(target=_show, args=(bar, what, records, done, stop), daemon=True)
    show.start()
    try:
        yield
    finally:
        stop.set()
        show.join()
        bar.close()


def _show(
    bar: "tqdm[None]",
    what: str,
    records: Mapping[str, int],
    done: Callable[[], set[str]],
    stop: threading.Event,
) -> None:
    start = last_line = time.monotonic()
    pause, finished = POLL_SECONDS, 0
    while True:
        last = stop.wait(pause)
        now = time.monotonic()
        if bar.disable and not last and now - last_line < LINE_SECONDS:
            continue
        with suppress(Unavailable):  # a bucket that does not answer ends the run, not this thread
            finished = sum(records.get(shard, 0) for shard in done())
        pause = max(POLL_SECONDS, _LISTING_SHARE * (time.monotonic() - now))
        bar.update(finished - bar.n)
        if bar.disable:
            last_line = now
            _LOG.info("%s", line(what, finished, sum(records.values()), now - start))
        if last:
            return


def line(what: str, finished: int, total: int, seconds: float) -> str:
    """One line of a log: how many, how fast, how long still."""
    rate = finished / seconds if seconds > 0 else 0.0
    left = f"{(total - finished) / rate:.0f} s left" if rate else "time left unknown"
    return f"{what}: {finished} of {total} images, {rate:.1f} images/s, {left}"
