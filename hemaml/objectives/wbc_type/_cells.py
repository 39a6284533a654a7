"""A cell as a network sees it: a square about it, of equal sides for all cells, with its mask.

Shape suffixes: N images; S side of the square; 5 channels: red, green, blue, cytoplasm, nucleus.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from hemaml.core.cache import Cache
from hemaml.core.rows import Rows
from hemaml.core.types import UInt8Array
from hemaml.data.pixels import VERSION as PIXELS_VERSION
from hemaml.data.pixels import scaled
from hemaml.objectives.wbc_type._segmenters import (
    CYTOPLASM,
    NUCLEUS,
    Segmenter,
    cell_or_all,
    masks_of,
)

COLOURS, CHANNELS = 3, 5
VERSION = 2
"""To be raised when squares change, so that cached ones are not used any more."""
Around = Literal["cell", "image"]


@dataclass(frozen=True, slots=True)
class Frame:
    """Which square of an image is shown.

    Attributes:
        size: S.
        around: The cell, whatever its size; or the whole image, so that cells keep their sizes.
        margin: What is added on each side of the cell, as a share of its longer side.
    """

    size: int
    around: Around
    margin: float

    def square(self, mask: UInt8Array) -> tuple[int, int, int]:
        """Top, left and side in pixels; may stand out of the image, but is no larger than it.

        Where the mask is empty, it is the square about the whole image.
        """
        height, width = mask.shape
        largest = max(height, width)
        rows, columns = np.nonzero(mask)
        if self.around == "image" or not len(rows):
            return (height - largest) // 2, (width - largest) // 2, largest
        (top, bottom), (left, right) = ((v.min(), v.max() + 1) for v in (rows, columns))
        longer = max(bottom - top, right - left)
        side = min(round(longer * (1 + 2 * self.margin)), largest)
        return int(top + bottom - side) // 2, int(left + right - side) // 2, side

    def view(self, image: UInt8Array, mask: UInt8Array) -> UInt8Array:
        """S x S x 5: colours, and how much of each pixel is cytoplasm and nucleus, 0 to 255.

        Beyond the image its edge is repeated, and is background. Where no cell was found, the whole
        image counts as cytoplasm.
        """
        mask = cell_or_all(mask)
        top, left, side = self.square(mask)
        pixels = _cut(image, top, left, side, mode="edge")
        classes = _cut(mask, top, left, side, mode="constant")
        shares = [np.where(classes == c, 255, 0).astype(np.uint8) for c in (CYTOPLASM, NUCLEUS)]
        return np.dstack([scaled(pixels, self.size), *(scaled(s, self.size) for s in shares)])


def cell_rows(
    segmenter: Segmenter,
    frame: Frame,
    images: Sequence[UInt8Array],
    digests: Sequence[str],
    cache: Cache,
) -> Rows:
    """The squares of all images, N x S x S x 5, from the cache.

    Args:
        segmenter: Makes the masks.
        frame: Which square.
        images: N images.
        digests: N digests of their content.
        cache: Keeps squares and masks.
    """

    def compute(positions: Sequence[int]) -> UInt8Array:
        chosen = [images[p] for p in positions]
        masks = masks_of(segmenter, chosen, [digests[p] for p in positions], cache)
        return np.stack([frame.view(i, m) for i, m in zip(chosen, masks, strict=True)])

    key: dict[str, object] = {
        "segmenter": segmenter.digest,
        "versions": [VERSION, PIXELS_VERSION],
        **asdict(frame),
    }
    return cache.rows("cells", key, digests, compute)


def _cut(
    values: UInt8Array, top: int, left: int, side: int, *, mode: Literal["edge", "constant"]
) -> UInt8Array:
    """The square, padded where it stands out of the image."""
    height, width = values.shape[:2]
    before = max(0, -top), max(0, -left)
    after = max(0, top + side - height), max(0, left + side - width)
    added = [*zip(before, after, strict=True), *[(0, 0)] * (values.ndim - 2)]
    grown = np.pad(values, added, mode=mode)
    top, left = top + before[0], left + before[1]
    return np.ascontiguousarray(grown[top : top + side, left : left + side])
