"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import tyro

Imports: TypeAlias = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="import", metavar="MODULE")
]
"""``--import MODULE``, which may be repeated."""
