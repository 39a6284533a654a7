"""Weights that let each class count alike in a loss."""

from collections.abc import Sequence

import numpy as np

from hemaml.core.errors import DataError
from hemaml.core.types import Float32Array


def class_weights(
    labels: Sequence[int], num_classes: int, *, may_lack: bool = False
) -> Float32Array:
    """A weight a class, inverse to its frequency; the mean over the items is 1.

    Args:
        labels: Class indices of N training items.
        num_classes: C.
        may_lack: A class without items has the weight 0, and does not count among the C.

    Returns:
        C weights: N / (C x items of the class).

    Raises:
        DataError: A class has no items, unless that may be.
    """
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=num_classes)
    assert len(counts) == num_classes, f"labels must be below {num_classes}"
    if may_lack:
        present = np.count_nonzero(counts)
        weights = len(labels) / (present * np.maximum(counts, 1))
        return np.where(counts > 0, weights, 0).astype(np.float32)
    if not counts.all():
        empty = ", ".join(str(index) for index in np.flatnonzero(counts == 0))
        raise DataError(
            f"each of the {num_classes} classes must have training items to be weighted, but of "
            f"{len(labels)} items none has class {empty}. Use more data, another split, or turn "
            "class weights off."
        )
    return (len(labels) / (num_classes * counts)).astype(np.float32)
