"""Cells whose type only their masks tell, for tests of classifiers that are given masks."""

import numpy as np

from hemaml.core.cache import array_digest
from hemaml.core.dataset import Dataset
from hemaml.data.cells import CELL_TYPES
from hemaml.data.labelled_images import labelled_digest

RADII = (4, 7, 10, 13, 16)
"""Of the nucleus, by type, in cells of radius 18."""


def disc(side, centre, radius):
    y, x = np.indices((side, side))
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def cells(num, *, seed=0, side=64, types=5):
    """Images of noise that say nothing, and drawn masks whose nucleus has its type's radius."""
    rng = np.random.default_rng(seed)
    images, masks, labels = [], [], []
    for index in range(num):
        centre = side / 2 + rng.uniform(-6, 6, 2)
        nucleus = disc(side, centre, RADII[index % types])
        masks.append(disc(side, centre, 18).astype(np.uint8) + nucleus)
        images.append(rng.integers(100, 200, (side, side, 3), dtype=np.uint8))
        labels.append(index % types)
    digests = tuple(array_digest(image) for image in images)
    return Dataset(
        "cells",
        CELL_TYPES,
        tuple(f"{seed}-{i:03d}" for i in range(num)),
        tuple(images),
        tuple(labelled_digest(d, label) for d, label in zip(digests, labels, strict=True)),
        labels=tuple(labels),
        drawn=tuple(masks),
        image_digests=digests,
    )
