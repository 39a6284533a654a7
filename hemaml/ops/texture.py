"""Colours and textures of an image, or of a part of it: numbers that hardly change when it turns.

Letters: H, W sides of the image. A part is a mask of H x W bool; None is the whole image. A part
without pixels has zeros.

Sources: M. Stricker, M. Orengo: Similarity of color images (1995); R. Haralick et al.: Textural
features for image classification (1973); T. Ojala et al.: Multiresolution gray-scale and rotation
invariant texture classification with local binary patterns (2002).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemaml.core.types import BoolArray, Float64Array, UInt8Array
from hemaml.ops.lab import rgb_to_lab

LEVELS = 32
"""Grey levels that co-occurrence counts."""
DISTANCES = (1, 2, 4)
PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "ASM", "correlation", "entropy")
PATTERNS = ((8, 1), (16, 2))
"""Points and radius of the local binary patterns."""
NUM_MOMENTS, NUM_CO_OCCURRENCE, NUM_PATTERNS = 27, 18, 28
Part = BoolArray


def to_hsv(image: UInt8Array) -> UInt8Array:
    """H x W x 3 hue, saturation and value, 0 to 255."""
    return np.asarray(Image.fromarray(image).convert("HSV"))


def to_grey(image: UInt8Array) -> UInt8Array:
    """H x W grey levels."""
    from skimage.color import rgb2gray

    return np.asarray(np.round(rgb2gray(image) * 255), np.uint8)


def colour_moments(image: UInt8Array, part: Part | None = None) -> Float64Array:
    """27 values: mean, deviation and cube root of the third central moment of nine channels.

    Those of RGB and HSV, as shares of 255, and of Lab, as shares of 100: for each space three
    means, three deviations, three roots.
    """
    if part is not None and not part.any():
        return np.zeros(NUM_MOMENTS)
    spaces = image / 255, to_hsv(image) / 255, rgb_to_lab(image) / 100
    return np.concatenate([_moments(space if part is None else space[part]) for space in spaces])


def co_occurrence(grey: UInt8Array, part: Part | None = None) -> Float64Array:
    """18 values: six properties of pairs of grey levels, each at three distances.

    Means over four directions of contrast, dissimilarity, homogeneity, angular second moment,
    correlation and entropy. Both pixels of a pair lie in the part.
    """
    from skimage.feature import graycomatrix, graycoprops

    levels = grey // (256 // LEVELS) + 1  # 0 is what lies outside
    levels = levels if part is None else np.where(part, levels, 0)
    angles = np.arange(4) * np.pi / 4
    counts = graycomatrix(  # type: ignore[no-untyped-call]
        levels.astype(np.uint8), DISTANCES, angles, LEVELS + 1, symmetric=True
    )
    pairs = counts[1:, 1:].astype(np.float64)
    if not pairs.any():
        return np.zeros(NUM_CO_OCCURRENCE)
    found = [graycoprops(pairs, name) for name in PROPERTIES]  # type: ignore[no-untyped-call]
    return np.concatenate([values.mean(axis=1) for values in found])


def local_patterns(grey: UInt8Array, part: Part | None = None) -> Float64Array:
    """28 values: histograms of uniform local binary patterns at two radii, each of sum 1.

    Patterns are of pixels in the part; their neighbours may lie outside.
    """
    from skimage.feature import local_binary_pattern

    found = []
    for points, radius in PATTERNS:
        codes = local_binary_pattern(grey, points, radius, "uniform")  # type: ignore[no-untyped-call]
        chosen = codes.ravel() if part is None else codes[part]
        counts = np.bincount(chosen.astype(np.int64), minlength=points + 2)
        found.append(counts / max(chosen.size, 1))
    return np.concatenate(found)


def _moments(channels: NDArray[Any]) -> Float64Array:
    """Of ... x 3 values."""
    values = np.ascontiguousarray(channels.reshape(-1, 3).T, np.float64)
    mean = values.mean(axis=1)
    off = values - mean[:, None]
    squares = off * off
    deviation, third = np.sqrt(squares.mean(axis=1)), np.cbrt((squares * off).mean(axis=1))
    return np.concatenate([mean, deviation, third])
