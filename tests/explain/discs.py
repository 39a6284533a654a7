"""Data whose scores follow from geometry: discs, and a model that moves them."""

import numpy as np

from hemaml.core.dataset import Dataset

CLASSES = ("background", "cytoplasm", "nucleus")


class Shifted:
    """Predicts the truth of each image, moved to the right by its own number of pixels."""

    num_trainable = 0

    def __init__(self, data, shifts):
        self.data, self.shifts = data, shifts

    def predict(self, images):
        one_hot = np.eye(len(self.data.classes), dtype=np.float32)
        assert len(images) == len(self.data)
        return [
            one_hot[np.roll(m, s, 1)] for m, s in zip(self.data.masks, self.shifts, strict=True)
        ]


def cell(height=40, width=40, *, radius=12, nucleus=6):
    """A disc of cytoplasm around a disc of nucleus, and an image of it."""
    y, x = np.indices((height, width))
    distance = np.hypot(y - height // 2, x - width // 2)
    mask = (distance < radius).astype(np.uint8) + (distance < nucleus).astype(np.uint8)
    image = np.array([[250, 235, 200], [190, 150, 190], [80, 40, 120]], dtype=np.uint8)[mask]
    return image, mask


def dataset(cells, **more):
    images, masks = zip(*cells, strict=True)
    names = tuple(f"cell-{i:02d}" for i in range(len(cells)))
    options = {"name": "cells", "classes": CLASSES, "masks": masks} | more
    return Dataset(ids=names, images=images, digests=names, **options)
