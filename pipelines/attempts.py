"""Cleaning up what dead runs left in an output: files still being written, or of their own."""

import logging
import shutil
from contextlib import suppress
from pathlib import Path

from pipelines.lease import alive, this_machine
from policy.errors import Unavailable
from transforms import bucket
from transforms.commit import ATTEMPTS, Output, found_files

_LOG = logging.getLogger("adalabel")

HANDED_OVER = "handed_over"
"""Among a run's own files: a service may be at work on it still, and reads the others."""

OLD_SECONDS = 24 * 3600.0
"""A file untouched for so long is being written by nobody."""


def clean_attempts(root: str, run: str, lock: Path) -> int:
    """Remove the attempts of runs that are over, of a local output that `run` holds.

    A run of this machine is over when its process is gone. Of another machine's, and of one that
    was handed over, only its files' age tells, against the lock that was just written: by the clock
    of the filesystem, not ours.
    Returns how many folders were removed.
    """
    attempts, now = Path(root) / ATTEMPTS, lock.stat().st_mtime
    removed = 0
    for folder in attempts.iterdir() if attempts.is_dir() else ():
        if folder.is_file():
            folder.unlink()  # of a version that had no folder for each run
        elif folder.name != run and _is_over(folder, now):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    if removed:
        _LOG.info("%s: removed what %d dead runs left", attempts, removed)
    return removed


def clean_bucket(place: Output) -> None:
    """Remove what is left of other runs in a gs:// output that is held: all others are dead.

    But for those that were handed over, whose end nobody here can see.
    """
    if not place.root.startswith(bucket.SCHEME):
        return
    names = found_files(f"{place.root}/{ATTEMPTS}")
    runs = {name.partition("/")[0] for name in names}
    for run in sorted(runs):
        if f"{run}/{HANDED_OVER}" not in names:
            place.delete_folder(f"{ATTEMPTS}/{run}")


def remove_done(place: Output) -> None:
    """Remove the folders of a run whose result is whole, and of those handed over before it."""
    if place.root.startswith(bucket.SCHEME):
        _forgiven(place, ATTEMPTS)
        return
    if "://" not in place.root:
        for mark in Path(place.root).glob(f"{ATTEMPTS}/*/{HANDED_OVER}"):
            shutil.rmtree(mark.parent, ignore_errors=True)
    remove_own(place)


def remove_own(place: Output) -> None:
    """Remove the folder of a run that is done."""
    if "://" in place.root:
        _forgiven(place, f"{ATTEMPTS}/{place.run}")
    else:
        attempts = Path(place.root) / ATTEMPTS
        shutil.rmtree(attempts / place.run, ignore_errors=True)
        with suppress(OSError):  # not empty: left by another machine's run, perhaps alive
            attempts.rmdir()


def _forgiven(place: Output, folder: str) -> None:
    """Remove a folder elsewhere, or leave what cannot be removed to the next run."""
    with suppress(OSError, Unavailable):  # Beam's is the former
        place.delete_folder(folder)


def _is_over(folder: Path, now: float) -> bool:
    host, _, rest = folder.name.rpartition(".")[0].rpartition(".")
    if host == this_machine() and rest.isdigit() and not (folder / HANDED_OVER).exists():
        return not alive(int(rest))
    try:
        newest = max(file.stat().st_mtime for file in [folder, *folder.iterdir()])
    except FileNotFoundError:  # it was given its final name just now: somebody is at work
        return False
    return now - newest > OLD_SECONDS
