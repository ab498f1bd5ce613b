"""The one error that a user can mend, and the one that a larger machine mends."""


class UsageError(ValueError):
    """Something the user asked for cannot be done: the text says what, what was expected, what came and what to do.

    The command line prints the text as one line and exits with 2; library callers catch it as a ``ValueError``.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the CPU or on a GPU: torch has no class of its own for the CPU's."""
    if isinstance(error, MemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
