"""Shapes as signed distances, and smooth noise: the tools that draw generated smears.

A shape is an H x W array of signed distances in pixels to its outline, negative inside. Unions
and cuts are minima and maxima, an irregular outline is smooth noise added to the distance, and
`coverage` turns a distance into the anti-aliased share of each pixel.
Source: I. Quilez, "2D distance functions", https://iquilezles.org/articles/distfunctions2d/
"""

import math

import numpy as np
from PIL import Image

from hemaml.core.types import Float32Array

Place = tuple[float, float]
"""Row and column, in pixels."""


class Grid:
    """Pixel centres of a square image of `size` pixels a side."""

    def __init__(self, size: int) -> None:
        self.size = size
        axis = np.arange(size, dtype=np.float32)
        self._rows_H1 = axis[:, None]
        self._cols_1W = axis[None, :]

    def ellipse(
        self, centre: Place, radius: float, *, stretch: float = 1.0, turn: float = 0.0
    ) -> Float32Array:
        """An ellipse with the area of a disk of `radius`; exact for `stretch` 1, else close.

        Args:
            centre: Row and column.
            radius: Geometric mean of the half axes, in pixels.
            stretch: Ratio of the half axes.
            turn: Angle of the long axis in radians.
        """
        y, x = self._rows_H1 - np.float32(centre[0]), self._cols_1W - np.float32(centre[1])
        if stretch == 1.0:
            disk: Float32Array = np.sqrt(y * y + x * x) - np.float32(radius)
            return disk
        sine, cosine, ratio = math.sin(turn), math.cos(turn), math.sqrt(stretch)
        along = (x * cosine + y * sine) * np.float32(1 / ratio)
        across = (y * cosine - x * sine) * np.float32(ratio)
        distance: Float32Array = np.sqrt(along * along + across * across) - np.float32(radius)
        return distance

    def capsule(self, start: Place, end: Place, radius: float) -> Float32Array:
        """A line with round ends of half width `radius`."""
        y, x = self._rows_H1 - np.float32(start[0]), self._cols_1W - np.float32(start[1])
        dy, dx = end[0] - start[0], end[1] - start[1]
        scale = np.float32(1 / max(dy * dy + dx * dx, 1e-6))
        along = np.clip((y * np.float32(dy) + x * np.float32(dx)) * scale, 0, 1)
        y, x = y - along * np.float32(dy), x - along * np.float32(dx)
        distance: Float32Array = np.sqrt(y * y + x * x) - np.float32(radius)
        return distance

    def noise(self, rng: np.random.Generator, grain: float) -> Float32Array:
        """Smooth noise of mean 0 and deviation about 1, with lumps of `grain` pixels."""
        num = max(2, math.ceil(self.size / grain) + 1)
        coarse = rng.standard_normal((num, num), dtype=np.float32)
        fine = Image.fromarray(coarse).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.array(fine) * np.float32(1.3)


def coverage(distance: Float32Array, softness: float = 1.0) -> Float32Array:
    """Share of each pixel inside a shape, 0..1; the edge is `softness` pixels wide."""
    share: Float32Array = np.clip(np.float32(0.5) - distance * np.float32(1 / softness), 0, 1)
    return share


def smooth_union(a: Float32Array, b: Float32Array, width: float) -> Float32Array:
    """Union whose seam is filled over `width` pixels (polynomial smooth minimum)."""
    overlap = np.maximum(np.float32(width) - np.abs(a - b), 0)
    union: Float32Array = np.minimum(a, b) - overlap * overlap * np.float32(0.25 / width)
    return union


def smooth_cut(a: Float32Array, b: Float32Array, width: float) -> Float32Array:
    """`a` without `b`, with an edge rounded over `width` pixels."""
    return -smooth_union(-a, b, width)
