"""What a network sees of an image, and the classifiers whose maps can be shown on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hemaml.core.types import UInt8Array
from hemaml.nn.classifier import ImageClassifier
from hemaml.tasks._classification import Classifier


@dataclass(frozen=True, slots=True)
class View:
    """A square that a network sees: the whole image scaled, or a tile of it.

    Attributes:
        top: First row of the image that it shows, in pixels.
        left: First column.
        height: Rows of the image that it shows.
        width: Columns.
        pixels: S x S x 3.
    """

    top: int
    left: int
    height: int
    width: int
    pixels: UInt8Array


class Explainable(Classifier, Protocol):
    """A classifier by a staged network; its prediction is the mean over the views of an image.

    Attributes:
        classes: Names of the classes, in index order.
        network: Normalised views to logits.
    """

    classes: tuple[str, ...]
    network: ImageClassifier

    def views(self, image: UInt8Array) -> Sequence[View]:
        """The views of one image of any size."""

    def normalise(self, batch_NSSC: Tensor) -> Tensor:
        """N x S x S x 3 grey levels 0 to 255 to what the network takes."""
