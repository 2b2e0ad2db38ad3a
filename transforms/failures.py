"""Why a worker stopped, in one line: runners hand on the text of an error only."""

from collections.abc import Iterator
from contextlib import contextmanager

from policy.errors import InputError, Stopped, Unavailable, shown
from transforms.shards import ReadFailed

_MOST = 4_000
"""Characters of a reason; the parts of it, such as a file's name, are cut much earlier."""


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
