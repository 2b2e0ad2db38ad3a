"""The exceptions that are meant for the user, each with the exit code of the command line.

Exception
├── InputError          2  what was given is wrong, and the message says what to do
└── Stopped                the work cannot go on, or must not; what is done stays done
    ├── TooManyBad      3  more records were rejected than --max-bad-fraction allows
    ├── OutputInUse     4  another run writes to the same output
    ├── Unavailable     5  a file system or a device failed: run the same command again
    ├── Alarm           6  the labels do not keep the policy's promise
    ├── Damaged         7  an output is not what its manifest says
    └── HandedOver      0  a service goes on with the work, without this process
"""

import re

MOST_SHOWN = 400
"""Characters of a foreign text that are shown or kept."""

_SECRET = re.compile(
    r"(?i)(?<=://)[^/\s@]+(?=@)"
    r"|(?<=signature=)[^&\s]+|(?<=token=)[^&\s]+|(?<=password=)[^&\s]+|(?<=key=)[^&\s]{20,}"
    r"|(?<=bearer )\S+"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


GIVEN_WRONG = (
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    FileExistsError,
    PermissionError,
)
"""Of what a file system says, that which running again later will not mend."""


class InputError(Exception):
    """What was found, what was wanted, and what to do, for the person who gave it.

    Not a ValueError: pydantic would wrap those in an exception of its own.
    """

    exit_code = 2


class Stopped(Exception):  # noqa: N818 - what happened, not that it is an error, matters
    """Nothing that was given is wrong, yet the work stops here."""

    exit_code = 5


class TooManyBad(Stopped):
    """More records were rejected than was allowed."""

    exit_code = 3


class HandedOver(Stopped):
    """A service has the job now and nobody waits here; the next run finds what came of it."""

    exit_code = 0


class OutputInUse(Stopped):
    """Another run writes to the same output."""

    exit_code = 4


class Unavailable(Stopped):
    """A file system or a device failed; the same command, later, goes on where this one stopped."""

    exit_code = 5


class Alarm(Stopped):
    """What was audited says that the labels do not keep the policy's promise."""

    exit_code = 6


class Damaged(Stopped):
    """Files of an output are not what they were when its manifest was written."""

    exit_code = 7


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """A foreign text (a file's name, another library's message) as it may be printed and kept.

    Control characters, surrogates and marks that turn the direction of text are escaped, what looks
    like a password, a token or a signature is replaced, and more than `most` characters are cut.
    """
    plain = _SECRET.sub("***", str(text))
    plain = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], plain)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
