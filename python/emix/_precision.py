"""What matrix products are computed in: a name for types, which options have without loading the compiled ops."""

from typing import Literal

Precision = Literal["float32", "tf32", "bf16"]
