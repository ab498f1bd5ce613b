"""The one error that a user can mend."""


class UsageError(ValueError):
    """Something the user asked for cannot be done: the text says what, what was expected, what came and what to do.

    The command line prints the text as one line and exits with 2; library callers catch it as a ``ValueError``.
    """
