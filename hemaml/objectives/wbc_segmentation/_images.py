"""What every segmenter of this task does with images before its network, and after it.

Shape suffixes: N images; C classes; H, W sides of one image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemaml.core.types import Float32Array, UInt8Array
from hemaml.data.augment import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE
from hemaml.ops.clean_up import clean_up
from hemaml.tasks import wbc_segmentation

NUM_CLASSES = len(wbc_segmentation.CLASSES)
NO_CLASS = 255
"""Class of padding in a batch of masks; equal to none."""
STRETCH = (0.01, 0.99)
"""Quantiles of each channel of an image that become -1 and 1."""


def turned(image: NDArray[Any], code: int) -> NDArray[Any]:
    """A view; as `hemaml.data.augment.apply_dihedral`, for an image that need be no square."""
    image = image.swapaxes(0, 1) if code & TRANSPOSE else image
    image = image[::-1] if code & FLIP_ROWS else image
    return image[:, ::-1] if code & FLIP_COLUMNS else image


def colour_quantiles(image: UInt8Array) -> Float32Array:
    """2 x 3 at `STRETCH`, by counting: a sort would take as long as superpixels do."""
    counts = [np.bincount(channel, minlength=256) for channel in image.reshape(-1, 3).T]
    shares = np.cumsum(counts, axis=1) / (image.size // 3)
    quantiles = [[np.searchsorted(share, q) for share in shares] for q in STRETCH]
    return np.array(quantiles, dtype=np.float32)


def colour_range(quantiles: Sequence[Float32Array], *, stretch: bool) -> tuple[Tensor, Tensor]:
    """N x 3 values that become -1, and those that become 1.

    Args:
        quantiles: Those of each image.
        stretch: Whether they are used, or 0 and 255.
    """
    if not stretch:
        return torch.zeros(len(quantiles), 3), torch.full((len(quantiles), 3), 255.0)
    low, high = torch.from_numpy(np.stack(quantiles)).unbind(1)
    return low, torch.maximum(high, low + 1)  # a channel may have a single value


def normal(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`low` to `high` becomes -1 to 1."""
    return (values - low) * (2 / (high - low)) - 1


def one_hot(masks_NHW: Tensor) -> Tensor:
    """N x C x H x W bool, false for all classes at padding; in memory class by class."""
    classes = torch.arange(NUM_CLASSES, device=masks_NHW.device)
    return (masks_NHW == classes[:, None, None, None]).transpose(0, 1)


def cleaned(values_HWC: Float32Array) -> Float32Array:
    """Probabilities whose most probable classes are a cleaned-up mask."""
    labels = values_HWC.argmax(axis=2).astype(np.uint8)
    wanted = clean_up(labels)
    rows, columns = np.nonzero(wanted != labels)
    old, new = labels[rows, columns], wanted[rows, columns]
    top = values_HWC[rows, columns, old]
    values_HWC[rows, columns, old] = values_HWC[rows, columns, new]
    values_HWC[rows, columns, new] = top
    # Where two classes were equally probable, trading places settled nothing.
    tied = values_HWC[rows, columns].argmax(axis=1) != new
    values_HWC[rows[tied], columns[tied]] = np.eye(3, dtype=np.float32)[new[tied]]
    return values_HWC
