"""Learning-rate schedules as plain functions of the batch, so that a resume needs no state."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Index of a batch, counted over all epochs, to a factor of the optimiser's learning rates."""


def one_cycle(
    num_batches: int, *, warm_up: float = 0.3, start: float = 1 / 25, end: float = 1e-4
) -> Schedule:
    """A rise from `start` to 1, then a fall to `end`, both along half a cosine.

    Args:
        num_batches: Batches of the whole training, at least 1.
        warm_up: Share of the training that the rise takes, between 0 and 1, both excluded.
        start: Factor at the first batch.
        end: Factor at the last batch and after it.

    Source: Smith and Topin, "Super-convergence", 2018, with cosines for straight lines.
    """
    top = warm_up * max(num_batches - 1, 1)
    bottom = max(num_batches - 1, 1)

    def factor(batch: int) -> float:
        if batch < top:
            return _half_cosine(start, 1.0, batch / top)
        return _half_cosine(1.0, end, min((batch - top) / (bottom - top), 1.0))

    return factor


def _half_cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
