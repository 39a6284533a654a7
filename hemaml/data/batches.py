"""Images of different sizes to one square batch.

Shape suffixes: N batch, C channels, P side of the square.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemaml.core.errors import DataError


def pad_batch(
    images: Sequence[NDArray[Any]], *, side: int | None = None, fill: float = 0
) -> tuple[Tensor, Tensor]:
    """Images in the top left corner of squares of one side.

    Args:
        images: N arrays of H x W x C, one type and one C; H and W may differ.
        side: P, default the greatest H or W in the batch.
        fill: Value of the padding.

    Returns:
        N x C x P x P of the images' type, and N x 1 x P x P bool, true where there is an image.

    Raises:
        DataError: An image is larger than `side`.
    """
    assert images, "a batch needs at least one image"
    largest = max(max(image.shape[:2]) for image in images)
    side = largest if side is None else side
    if largest > side:
        raise DataError(
            f"images must fit into a square of {side} pixels a side, but one has {largest}. "
            "Raise the side, or scale the images down."
        )
    channels = images[0].shape[2]
    batch = np.full((len(images), channels, side, side), fill, dtype=images[0].dtype)
    valid = np.zeros((len(images), 1, side, side), dtype=np.bool_)
    for index, image in enumerate(images):
        rows, columns = image.shape[:2]
        batch[index, :, :rows, :columns] = image.transpose(2, 0, 1)
        valid[index, :, :rows, :columns] = True
    return torch.from_numpy(batch), torch.from_numpy(valid)
