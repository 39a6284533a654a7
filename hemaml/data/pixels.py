"""Images of any size as equal squares of pixels: decoded and scaled once, then read from disk."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from hemaml.core.cache import Cache
from hemaml.core.rows import Rows
from hemaml.core.types import UInt8Array
from hemaml.data.lazy_images import num_threads

VERSION = 1
"""To be raised when scaling changes, so that cached pixels are not used any more."""


def resized(images: Sequence[UInt8Array], digests: Sequence[str], size: int, cache: Cache) -> Rows:
    """Images scaled to `size` x `size`, whatever their sides were.

    Only images that the cache lacks are looked up, so that a set on disk is decoded once for all
    trials; memory does not grow with their number while the cache is on.

    Args:
        images: N images of H x W x 3; those of a set on disk are decoded in threads.
        digests: N digests of their content.
        size: Side in pixels.
        cache: Keeps the rows.

    Returns:
        N x size x size x 3, uint8.

    Raises:
        DataError: A file does not decode any more.
        StoreError: The cache cannot be written.
    """
    assert len(images) == len(digests), f"{len(images)} images, {len(digests)} digests"

    with ThreadPoolExecutor(num_threads()) as pool:

        def compute(positions: Sequence[int]) -> UInt8Array:
            return np.stack(list(pool.map(lambda p: scaled(images[p], size), positions)))

        return cache.rows("pixels", {"size": size, "version": VERSION}, digests, compute)


def scaled(image: UInt8Array, size: int) -> UInt8Array:
    """One H x W x 3 image as size x size x 3: bilinear, antialiased where it shrinks."""
    if image.shape[:2] == (size, size):
        return image
    picture = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
