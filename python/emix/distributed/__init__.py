"""Processes that train together: what the parts of a run ask of the others."""

from emix.distributed.group import Alone, Group

__all__ = ["Alone", "Group"]
