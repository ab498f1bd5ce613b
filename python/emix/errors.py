"""The one error that a user can mend, and the one that a larger machine mends; and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_MOST_MEANT = 3


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


def near(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """Which of the ``known`` names somebody may have meant, the nearest first: those whose last part it is (``2s3z`` of
    ``battle/2s3z``), then those that read alike. Upper case and ``_`` in place of ``-`` make no difference."""
    plain = {each: _plain(each) for each in known}
    asked = _plain(str(name))
    last = asked.rpartition("/")[2]
    tails = [each for each, text in plain.items() if last and text.rpartition("/")[2] == last]
    alike = difflib.get_close_matches(asked, plain.values(), n=_MOST_MEANT, cutoff=cutoff)
    meant = [*tails, *(each for text in alike for each in plain if plain[each] == text)]
    return list(dict.fromkeys(meant))[:_MOST_MEANT]


def did_you_mean(meant: Sequence[str]) -> str:
    """The question after one or several names."""
    *first, last = meant
    return f"did you mean {', '.join(first)}{' or ' if first else ''}{last}?"


def closest(name: object, known: Iterable[str], *, most: int = 1000) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all, ``most`` of them at most."""
    known = list(known)
    if meant := near(name, known, cutoff=0.5):
        return did_you_mean(meant)
    return f"expected one of {', '.join(known[:most])}{', ...' if len(known) > most else ''}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
