"""Squares cut from images at full resolution: a grid of them, or places drawn at random.

A microscope's field scaled to a network's input loses its nuclei; some squares of it do not.

Shape suffixes: N images, T tiles of an image, S side of a tile.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hemaml.core.cache import Cache
from hemaml.core.errors import DataError
from hemaml.core.rows import Rows
from hemaml.core.types import UInt8Array
from hemaml.data.lazy_images import num_threads

VERSION = 1
"""To be raised when the grid or a frame changes, so that cached pixels are not used any more."""


def grid_places(height: int, width: int, num: int, side: int) -> list[tuple[int, int]]:
    """Top left corners of `num` tiles that cover an image evenly, row by row.

    Of all grids with as many tiles that one is taken whose cells are nearest to squares.

    Args:
        height: Of the image, in pixels.
        width: Likewise.
        num: T.
        side: S.

    Raises:
        DataError: The image is smaller than a tile.
    """
    _check(height, width, side)
    grids = [(rows, num // rows) for rows in range(1, num + 1) if num % rows == 0]
    rows, columns = min(grids, key=lambda g: abs(math.log(height / g[0] / (width / g[1]))))
    return [
        (top, left)
        for top in _spread(height - side, rows)
        for left in _spread(width - side, columns)
    ]


def grid_tiles(image: UInt8Array, num: int, side: int) -> UInt8Array:
    """T x S x S x 3: the tiles of `grid_places`."""
    height, width = image.shape[:2]
    places = grid_places(height, width, num, side)
    return np.stack([image[top : top + side, left : left + side] for top, left in places])


def tiled(
    images: Sequence[UInt8Array], digests: Sequence[str], num: int, side: int, cache: Cache
) -> Rows:
    """The grid of each image, one after the other: (N T) x S x S x 3.

    Args:
        images: N images of H x W x 3, of any sizes; those on disk are decoded in threads.
        digests: N digests of their content.
        num: T.
        side: S.
        cache: Keeps the rows.

    Raises:
        DataError: An image is smaller than a tile, or does not decode any more.
    """
    keys = [f"{digest}-{tile}" for digest in digests for tile in range(num)]
    key: dict[str, object] = {"tiles": num, "size": side, "version": VERSION}

    with ThreadPoolExecutor(num_threads()) as pool:

        def compute(positions: Sequence[int]) -> UInt8Array:
            wanted = sorted({position // num for position in positions})
            cut = pool.map(lambda item: grid_tiles(images[item], num, side), wanted)
            found = dict(zip(wanted, cut, strict=True))
            return np.stack([found[position // num][position % num] for position in positions])

        return cache.rows("tiles", key, keys, compute, batch=num * num_threads())


def frames(images: Sequence[UInt8Array], digests: Sequence[str], side: int, cache: Cache) -> Rows:
    """Whole images at full resolution, to cut tiles from at random: N x H x W x 3.

    Args:
        images: N images of one size; those on disk are decoded in threads.
        digests: N digests of their content.
        side: S.
        cache: Keeps the rows.

    Raises:
        DataError: Images differ in size, or are smaller than a tile.
    """
    height, width = images[0].shape[:2]
    _check(height, width, side)
    key: dict[str, object] = {"height": height, "width": width, "version": VERSION}

    def whole(image: UInt8Array) -> UInt8Array:
        if image.shape[:2] != (height, width):
            raise DataError(
                "random tiles are cut from images of one size, but some are "
                f"{height} x {width} pixels and one is {image.shape[0]} x {image.shape[1]}. "
                "Scale them alike, or set `tile_choice: grid`, which takes any sizes."
            )
        return image

    with ThreadPoolExecutor(num_threads()) as pool:

        def compute(positions: Sequence[int]) -> UInt8Array:
            return np.stack(list(pool.map(lambda p: whole(images[p]), positions)))

        return cache.rows("frames", key, digests, compute, batch=num_threads())


def _spread(room: int, num: int) -> list[int]:
    """`num` places from 0 to `room`, evenly; the middle where it is one."""
    return [round(room * (i / (num - 1) if num > 1 else 0.5)) for i in range(num)]


def _check(height: int, width: int, side: int) -> None:
    if min(height, width) < side:
        raise DataError(
            f"tiles of {side} pixels need images of that size at least, but one is "
            f"{height} x {width}. Lower `size`, or set `tiles: 0` to scale whole images."
        )
