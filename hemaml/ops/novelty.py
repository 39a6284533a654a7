"""How unlike its training images a model finds another one: distances between their features.

Each feature is scaled to the deviation 1 over the training images. The distance of an image is that
to its k-th nearest training image, over the square root of the number of features. Of training
images themselves it is taken to those of other groups, since a new image is of a new patient: those
of one patient are nearer to each other than to anything that is to come.

Letters: N training images; Q others; D features.

Source: Y. Sun et al.: Out-of-distribution detection with deep nearest neighbors. ICML 2022, with
scaled features in place of normalised ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from hemaml.core.types import Float32Array

K = 5
"""The neighbour whose distance counts."""
UNLIKE = 99.0
"""Percentile of the training images' own distances above which an image is unlike them."""
LEAST = 20
"""Training images without which nothing is said."""
OTHERS = 0.25
"""Share of the training images that must be of other groups than each. Where most are of one
patient, the distances to the few others do not tell how near a new patient's image should be."""
FILE = "novelty.safetensors"


@dataclass(frozen=True, slots=True)
class Reference:
    """Training images as a model sees them.

    Attributes:
        features: N x D, scaled.
        centre: D means that were subtracted.
        scale: D deviations that were divided by.
        distances: N, ascending: of each training image to those of other groups.
    """

    features: Float32Array
    centre: Float32Array
    scale: Float32Array
    distances: Float32Array

    @classmethod
    def of(cls, features_ND: Float32Array, groups: Sequence[str]) -> Self | None:
        """What is to be kept of training images; None where they, or those of others, are too few.

        Args:
            features_ND: Of the images, as the model sees them.
            groups: N names of patients, cases or slides; empty where the data has none.
        """
        num = len(features_ND)
        names = np.asarray(groups) if groups else np.arange(num)
        others_NN = names[:, None] != names[None, :]
        if num < LEAST or others_NN.sum(axis=1).min() < OTHERS * num:
            return None
        centre, scale = features_ND.mean(axis=0), features_ND.std(axis=0)
        scale = np.where(scale > 1e-6, scale, np.float32(1))  # a feature that says nothing
        scaled = (features_ND - centre) / scale
        between_NN = np.where(others_NN, _distances(scaled, scaled), np.inf)
        found = np.sort(np.partition(between_NN, K - 1, axis=1)[:, K - 1])
        return cls(*(np.asarray(v, dtype=np.float32) for v in (scaled, centre, scale, found)))

    def distance(self, features_QD: Float32Array) -> Float32Array:
        """Q distances of other images."""
        between_QN = _distances((features_QD - self.centre) / self.scale, self.features)
        return np.asarray(np.partition(between_QN, K - 1, axis=1)[:, K - 1])

    def percentile(self, distance: float) -> float:
        """Per cent of the training images that are nearer to the others than a distance."""
        below = int(np.searchsorted(self.distances, np.float32(distance)))
        return 100 * below / len(self.distances)

    def save(self, folder: Path) -> None:
        """Writes `novelty.safetensors` into an existing folder."""
        from safetensors.numpy import save_file

        names = ("features", "centre", "scale", "distances")
        save_file({n: np.ascontiguousarray(getattr(self, n)) for n in names}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(folder / FILE))


def _distances(a_QD: Float32Array, b_ND: Float32Array) -> Float32Array:
    """Q x N root mean squares of the differences."""
    squares = (a_QD**2).sum(1)[:, None] + (b_ND**2).sum(1)[None, :] - 2 * (a_QD @ b_ND.T)
    root: Float32Array = np.sqrt(np.maximum(squares, 0) / a_QD.shape[1])
    return root
