"""The one exception that means: what the user gave is wrong, and the message says what to do.

Exception
└── InputError      the command line prints its message and exits with 2
"""


class InputError(Exception):
    """What was found, what was wanted, and what to do, for the person who gave it.

    Not a ValueError: pydantic would wrap those in an exception of its own.
    """
