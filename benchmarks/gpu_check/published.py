"""Figures to stand beside the check's own where the peer is not run in it: what is to be reached or beaten.

Each was measured on 2026-11-20 on one H100 80GB HBM3 with torch 2.11.0+cu130. A row of the benchmarks finds its figure
by part, name and the sizes in its description, in their order; an empty tuple stands for any sizes.
"""

from __future__ import annotations

import re
from typing import Any

SOURCE = "published: measured 2026-11-20 on one H100 80GB HBM3, torch 2.11.0+cu130"

FIGURES: dict[tuple[str, str, tuple[int, ...]], str] = {
    # device time in a CUDA graph, batch x steps
    ("ops", "lambda_returns", (32, 60)): "rl-triton 1.64 us",
    ("ops", "lambda_returns", (32, 120)): "rl-triton 1.62 us",
    ("ops", "lambda_returns", (1024, 128)): "rl-triton 2.32 us",
    ("ops", "lambda_returns", (4096, 128)): "rl-triton 4.22 us",
    ("ops", "lambda_returns", (4096, 1024)): "rl-triton 24.8 us",
    ("ops", "lambda_returns", (262144, 128)): "rl-triton 174 us",
    # cuDNN's float32, in a CUDA graph: rows x steps, 64 units
    ("ops", "gru_sequence", (96, 60)): "nn.GRU 55 us, with backward 216",
    ("ops", "gru_sequence", (160, 120)): "nn.GRU 112 us, with backward 801",
    ("ops", "gru_sequence", (320, 180)): "nn.GRU 237 us, with backward 2840",
    ("ops", "gru_sequence", (864, 180)): "nn.GRU 641 us, with backward 7693",
    ("ops", "gru_sequence", (3200, 100)): "nn.GRU 1231 us, with backward 15584",
    ("ops", "sample_actions", (5760, 9)): "torch.multinomial 34 us",
    ("ops", "sample_actions", (38400, 18)): "torch.multinomial 351 us",
    # random available actions, observations included
    ("battle", "3m", ()): "SMAX 13.1M (4096 envs), 26.7M (32768)",
    ("battle", "2s3z", ()): "SMAX 8.0M (4096 envs), 9.3M (32768)",
    ("battle", "27m_vs_30m", ()): "SMAX 0.30M (4096 envs)",
    # an update with nn.GRU, whole in a CUDA graph
    ("update", "smix 3m", ()): "with nn.GRU 0.65 ms",
    ("update", "smix 2s3z", ()): "with nn.GRU 1.36 ms",
    ("update", "smix MMM2", ()): "with nn.GRU 3.8 ms",
    ("update", "smix 27m_vs_30m", ()): "with nn.GRU 10.9 ms",
}


def published(part: str, name: str, description: str = "") -> str:
    """The figure that belongs to a row, or an empty string."""
    sizes = tuple(int(each.replace(",", "")) for each in re.findall(r"\b\d[\d,]*\b", description))
    fitting: list[Any] = [
        (wanted, figure)
        for (its_part, its_name, wanted), figure in FIGURES.items()
        if (its_part, its_name) == (part, name) and sizes[: len(wanted)] == wanted
    ]
    return fitting[0][1] if fitting else ""
