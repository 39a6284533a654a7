"""Areas and outlines of what a segmenter found in an image.

Shape suffixes: H, W sides of the image; C classes, of which the first is the background.
"""

from collections.abc import Sequence

import numpy as np

from hemaml.core.types import Float32Array, Float64Array, UInt8Array
from hemaml.serve.answers import Point, Segmentation

NUCLEUS, CYTOPLASM = "nucleus", "cytoplasm"
TOLERANCE = 0.5
"""Pixels by which an outline may be simplified: it stays within the pixels that it passes."""
LEAST_CORNERS = 4
"""Of a polygon whose last corner repeats the first."""
MOST_CORNERS = 100_000
"""Of all outlines of an image: what is cut into more is noise, and no page could draw it."""


def segmentation(probabilities_HWC: Float32Array, classes: Sequence[str]) -> Segmentation:
    """What a segmenter says of an image, by each pixel's most probable class."""
    class_HW = probabilities_HWC.argmax(axis=2).astype(np.uint8)
    counts = np.bincount(class_HW.ravel(), minlength=len(classes))
    areas = {name: int(count) for name, count in zip(classes, counts, strict=True)}
    cytoplasm = areas.get(CYTOPLASM, 0)
    ratio = areas[NUCLEUS] / cytoplasm if NUCLEUS in areas and cytoplasm else None
    contours, room = {}, MOST_CORNERS
    for index, name in enumerate(classes[1:], start=1):
        contours[name] = outlines(class_HW == index, most=room)
        room -= sum(map(len, contours[name]))
    return Segmentation(
        areas=areas,
        fractions={name: area / class_HW.size for name, area in areas.items()},
        nucleus_cytoplasm_ratio=ratio,
        contours=contours,
    )


def outlines(mask_HW: UInt8Array, *, most: int = MOST_CORNERS) -> list[list[Point]]:
    """The closed polygons around a mask's pixels, largest first, in x and y of their centres.

    Those that would make it more than `most` corners in all are left out.
    """
    from skimage.measure import approximate_polygon, find_contours

    framed = np.pad(mask_HW.astype(np.float32), 1)  # closes what the image's edge cuts
    found = find_contours(framed, 0.5)  # type: ignore[no-untyped-call]
    simple: list[Float64Array] = [
        approximate_polygon(line, TOLERANCE) - 1  # type: ignore[no-untyped-call]
        for line in found
    ]
    kept = []
    for line in sorted(simple, key=_area, reverse=True):
        if LEAST_CORNERS <= len(line) <= most:
            most -= len(line)
            kept.append([(round(float(x), 1), round(float(y), 1)) for y, x in line])
    return kept


def _area(line: Float64Array) -> float:
    """Of a closed polygon, by the shoelace formula."""
    y, x = line.T
    return abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:])) / 2
