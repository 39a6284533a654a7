"""What a segmentation model predicts for a data set, with the scores of each image."""

from dataclasses import dataclass

import numpy as np

from hemaml.core.dataset import Dataset
from hemaml.core.errors import DataError
from hemaml.core.objective import Model
from hemaml.core.types import UInt8Array
from hemaml.ops.scores import mean_scores, segmentation_scores


@dataclass(frozen=True, slots=True)
class Predictions:
    """N predictions beside their truth.

    Attributes:
        masks: N arrays of H x W, uint8 class indices.
        scores: N results of `segmentation_scores`.
        dice: N means of Dice over the foreground classes that the image has; NaN if it has none.
    """

    masks: list[UInt8Array]
    scores: list[dict[str, float]]
    dice: list[float]


def foreground(data: Dataset) -> tuple[str, ...]:
    """Names of all classes but the background, which is the first."""
    return data.classes[1:]


def predict_masks(model: Model, data: Dataset) -> Predictions:
    """The most probable class of each pixel, scored against the masks of the data.

    Raises:
        DataError: The data has no images, or no masks.
        ConfigError: A prediction has not the shape of its image.
    """
    if not len(data) or not len(data.masks):
        raise DataError(
            f"Pictures of a segmentation need images with masks, but {data.name!r} has "
            f"{len(data)} images and {len(data.masks)} masks. Draw another figure or data set."
        )
    masks = [p.argmax(axis=-1).astype(np.uint8) for p in model.predict(data.images)]
    pairs = zip(masks, data.masks, strict=True)
    scores = [segmentation_scores(p, t, classes=data.classes) for p, t in pairs]
    means = [mean_scores([row], foreground=foreground(data)) for row in scores]
    return Predictions(masks, scores, [row["dice"] for row in means])
