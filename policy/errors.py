"""The one exception that means: what the user gave is wrong, and the message says what to do.

ValueError
└── InputError      the command line prints its message and exits with 2
"""


class InputError(ValueError):
    """What was found, what was wanted, and what to do, for the person who gave it."""
