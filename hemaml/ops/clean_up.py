"""Repair of a predicted cell mask by what every white blood cell obeys."""

import numpy as np

from hemaml.core.types import BoolArray, UInt8Array

BACKGROUND, CYTOPLASM, NUCLEUS = 0, 1, 2

_EIGHT = np.ones((3, 3), dtype=np.int8)


def clean_up(labels: UInt8Array) -> UInt8Array:
    """One cell without holes, and a nucleus without holes in it.

    In this order: of cytoplasm and nucleus together, the largest 8-connected component stays and
    the others become background (of equals, the first in reading order stays); background that
    it encloses becomes cytoplasm; all that is enclosed by nucleus becomes nucleus. Enclosed
    means not 4-connected to the edge of the image from outside. A nucleus in several lobes stays
    so. Cleaning up twice is cleaning up once.

    Args:
        labels: H x W: 0 background, 1 cytoplasm, 2 nucleus.

    Returns:
        A new array of the same shape.
    """
    cleaned = np.full_like(labels, BACKGROUND)
    window = _window(labels != BACKGROUND)
    if window is None:
        return cleaned
    inside = labels[window]  # what lies around the cells is background, and the edge of no hole
    cell = _largest_component(inside != BACKGROUND)
    part = np.where(cell, inside, BACKGROUND).astype(np.uint8)
    part[_holes(cell)] = CYTOPLASM
    part[_holes(part == NUCLEUS)] = NUCLEUS
    cleaned[window] = part
    return cleaned


def _window(mask: BoolArray) -> tuple[slice, slice] | None:
    """The smallest window that holds all of `mask`, or None where that is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _largest_component(mask: BoolArray) -> BoolArray:
    from scipy import ndimage

    components, _ = ndimage.label(mask, structure=_EIGHT)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest: BoolArray = (components == sizes.argmax()) & mask
    return largest


def _holes(mask: BoolArray) -> BoolArray:
    """Pixels outside of `mask` that no path over sides of pixels joins to the image's edge."""
    from scipy import ndimage

    components, count = ndimage.label(~mask)
    enclosed = np.ones(count + 1, dtype=np.bool_)
    enclosed[0] = False
    for edge in (components[0], components[-1], components[:, 0], components[:, -1]):
        enclosed[edge] = False
    holes: BoolArray = enclosed[components]
    return holes
