"""One number for each map, found on several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_ROWS_A_TASK = 16


def by_rows(function: Callable[[range], list[float]], count: int) -> Tensor:
    """The function's numbers for all rows, on as many threads as PyTorch may use; NumPy lets them run side by side.

    PyTorch's own threads wait for each other at every operation, which on a busy machine takes many times as long.

    Args:
        function: the numbers of some consecutive rows.
        count: of rows.

    Returns:
        (count,) float64.
    """
    pieces = [range(start, min(start + _ROWS_A_TASK, count)) for start in range(0, count, _ROWS_A_TASK)]
    threads = min(torch.get_num_threads(), len(pieces))
    if threads < 2:
        found = [function(rows) for rows in pieces]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(function, pieces))
    return torch.tensor([value for piece in found for value in piece], dtype=torch.float64)
