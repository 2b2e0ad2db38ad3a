"""Why a worker stopped, carried through any runner: runners hand on the text of an error only."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from policy import errors
from policy.errors import InputError, Stopped, Unavailable, shown
from transforms.shards import ReadFailed

_WHERE = re.compile(r" \[while running '.*?'\]$")
_LAST = re.compile(r"^policy\.errors\.(\w+): (.*)$", re.MULTILINE)


@contextmanager
def reasons_given() -> Iterator[None]:
    """In a worker: what the body raises for the user is one line; what a file system says, too.

    Raises Unavailable for a failure of the file system.
    """
    try:
        yield
    except (InputError, Stopped) as error:
        raise type(error)(shown(error, _MOST)) from error
    except (OSError, ReadFailed) as error:
        where = getattr(error, "filename", None)
        what = f"{where}: {error.strerror}" if where and isinstance(error, OSError) else error
        raise Unavailable(
            f"{shown(what)}; what is done stays done. Mend it and run the same command again."
        ) from error


@contextmanager
def reasons_told() -> Iterator[None]:
    """In the launcher: an error of the runner's that tells what a worker raised becomes that."""
    try:
        yield
    except (InputError, Stopped) as error:
        raise type(error)(_WHERE.sub("", str(error))) from error
    except Exception as error:  # each runner has its own kind
        found = _LAST.findall(str(error))
        if not found:
            raise
        name, message = found[-1]
        raise getattr(errors, name)(_WHERE.sub("", message)) from error


_MOST = 4_000
