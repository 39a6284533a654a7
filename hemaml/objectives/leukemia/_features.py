"""An image as one vector of numbers: colour and texture, gradients, pixels or a network's features.

`classical` has 121 values, none of which changes much when the image is turned:

    27  mean, deviation and cube root of the third central moment of each channel of RGB, HSV
        and Lab
    48  histograms of hue, saturation and value in 16 bins, as shares
    18  of grey level co-occurrence at distances 1, 2 and 4, means over four directions: contrast,
        dissimilarity, homogeneity, angular second moment, correlation, entropy
    28  histograms of uniform local binary patterns, 8 points at radius 1 and 16 at radius 2

Sources: those of `hemaml.ops.texture`, which has all but the histograms; N. Dalal, B. Triggs:
Histograms of oriented gradients for human detection (2005).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hemaml.core.cache import Cache
from hemaml.core.rows import Rows
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.data.pixels import resized
from hemaml.nn.backbones import Loaded
from hemaml.nn.embeddings import embeddings
from hemaml.ops.texture import co_occurrence, colour_moments, local_patterns, to_grey, to_hsv

Kind = Literal["classical", "hog", "pixels", "embeddings"]
VERSION = 1
"""To be raised when features change, so that cached ones are not used any more."""
NUM_CLASSICAL = 121
PIXELS_SIDE = 32
"""Of the images whose pixels are features by themselves."""
CELL, ORIENTATIONS, BLOCK = 16, 9, 2
"""HOG: pixels of a cell's side, bins of a cell, cells of a block's side."""
BINS = 16
"""Of a colour's histogram."""
EMBEDDED_AT_ONCE = 64


def num_features(kind: Kind, *, size: int, embedding: int) -> int:
    """D: how many numbers an image becomes.

    Args:
        kind: Of the features.
        size: Side of the images.
        embedding: Features of the backbone.
    """
    blocks = size // CELL - BLOCK + 1
    return {
        "classical": NUM_CLASSICAL,
        "hog": blocks**2 * BLOCK**2 * ORIENTATIONS,
        "pixels": PIXELS_SIDE**2 * 3,
        "embeddings": embedding,
    }[kind]


@dataclass(frozen=True, slots=True)
class Extractor:
    """Makes features of images.

    Attributes:
        kind: Of the features.
        size: Side that images are scaled to first; pixels have a side of their own.
        device: Where a backbone runs.
        loaded: The backbone of embeddings; None for others.
    """

    kind: Kind
    size: int
    device: str
    loaded: Loaded | None

    def rows(self, images: Sequence[UInt8Array], digests: Sequence[str], cache: Cache) -> Rows:
        """N x D features, float32, each image's computed once.

        Args:
            images: N images of any sizes.
            digests: N digests of their content.
            cache: Keeps features, and what they are made from.

        Raises:
            StoreError: The cache cannot be written.
        """
        side = PIXELS_SIDE if self.kind == "pixels" else self.size
        pixels = resized(images, digests, side, cache)
        if self.kind == "embeddings":
            assert self.loaded is not None
            return embeddings(self.loaded, pixels, digests, cache, size=side, device=self.device)
        describe = DESCRIPTIONS[self.kind]

        def compute(positions: Sequence[int]) -> Float32Array:
            return np.stack([describe(image) for image in pixels[positions]])

        key = {"pixels": pixels.origin, "kind": self.kind, "size": side, "version": VERSION}
        return cache.rows("features", key, digests, compute)

    def __call__(self, images: Sequence[UInt8Array]) -> Float32Array:
        """The same for images that are seen once, some at a time."""
        chunks = []
        for first in range(0, len(images), EMBEDDED_AT_ONCE):
            chunk = images[first : first + EMBEDDED_AT_ONCE]
            chunks.append(self.rows(chunk, [""] * len(chunk), Cache.off())[:])
        return np.concatenate(chunks)


def classical(image: UInt8Array) -> Float32Array:
    """121 statistics of an S x S x 3 image's colour and texture; see the module."""
    hsv, grey = to_hsv(image), to_grey(image)
    histograms = [
        np.bincount(hsv[:, :, c].ravel() // (256 // BINS), minlength=BINS) for c in range(3)
    ]
    shares = np.concatenate(histograms) / hsv[:, :, 0].size
    values = np.concatenate(
        [colour_moments(image), shares, co_occurrence(grey), local_patterns(grey)]
    )
    return values.astype(np.float32)


def hog(image: UInt8Array) -> Float32Array:
    """Histograms of oriented gradients of an S x S x 3 image."""
    from skimage import feature

    values = feature.hog(
        image,
        orientations=ORIENTATIONS,
        pixels_per_cell=(CELL, CELL),
        cells_per_block=(BLOCK, BLOCK),
        channel_axis=-1,
    )
    return np.asarray(values, np.float32)


def flattened(image: UInt8Array) -> Float32Array:
    """All values of an image, 0 to 1."""
    return image.reshape(-1).astype(np.float32) / np.float32(255)


DESCRIPTIONS: dict[Kind, Callable[[UInt8Array], Float32Array]] = {
    "classical": classical,
    "hog": hog,
    "pixels": flattened,
}
