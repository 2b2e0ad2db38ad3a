"""Holding an output's folder: one run at a time, with nothing left there of runs that are over."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.attempts import clean_attempts, clean_bucket, remove_done, remove_own
from pipelines.claim import LOCK, claimed
from policy.errors import HandedOver, InputError, shown
from transforms.commit import Output


@contextmanager
def held(root: str) -> Iterator[Output]:
    """Hold a folder while the body runs, and clean up behind runs that are over."""
    check_place(root)
    with claimed(root) as run:
        place = Output(root, run)
        if "://" in root:
            clean_bucket(place)
        else:
            clean_attempts(root, run, Path(root) / LOCK)
        try:
            yield place
        except HandedOver:
            raise  # workers still read the run's own files, until a later run finds all done
        except BaseException:
            remove_own(place)
            raise
        remove_done(place)


def check_place(root: str) -> None:
    """Refuse what can hold no output, before anything is made there."""
    scheme, is_url, _ = root.partition("://")
    if is_url and scheme not in ("gs", "s3"):
        raise InputError(
            f"{shown(root)}: no place for an output; wanted a folder of this machine, gs:// or "
            "s3:// (where two runs at once are not kept apart)"
        )
