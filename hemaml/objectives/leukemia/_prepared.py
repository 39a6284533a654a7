"""Images as a partly frozen network takes them: pixels, or what its lower stages made of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context
from hemaml.core.rows import Rows
from hemaml.core.types import UInt8Array
from hemaml.data.augment_affine import Augmentation, augment, draw
from hemaml.data.pixels import resized
from hemaml.nn.backbones import Architecture, Loaded
from hemaml.nn.embeddings import activations, from_rows


@dataclass(frozen=True, slots=True)
class Prepared:
    """All images of a set.

    Attributes:
        images: Of the set; known again as this very object.
        rows: N x S x S x 3 uint8 where `stage` is 0, else rows of `activations`.
        stage: Stages that are behind the rows.
    """

    images: Sequence[UInt8Array]
    rows: Rows
    stage: int


def prepared(data: Dataset, loaded: Loaded, size: int, stage: int, context: Context) -> Prepared:
    """Images scaled to `size` and put through the lowest `stage` stages, from the cache."""
    digests = data.contents()
    rows = resized(data.images, digests, size, context.cache)
    if stage:
        cache, device = context.cache, context.device
        rows = activations(loaded, rows, digests, cache, size=size, device=device, stage=stage)
    return Prepared(data.images, rows, stage)


def inputs(
    rows: NDArray[Any],
    stage: int,
    architecture: Architecture,
    device: str,
    *,
    how: Augmentation | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Some rows of a `Prepared` as a network takes them behind as many stages.

    Args:
        rows: N rows.
        stage: Stages behind them.
        architecture: Normalises pixels.
        device: Where they go.
        how: Changes pixels at random; None leaves them.
        generator: What is drawn from.
    """
    if stage:
        return from_rows(rows, device)
    pixels = torch.from_numpy(rows).to(device)
    if how is not None and how.changes_anything:
        pixels = augment(pixels, draw(len(pixels), how, generator))
    return architecture.normalise(pixels)


@dataclass(frozen=True, slots=True)
class EpochBatches:
    """An epoch's batches: what the network takes, and N labels. Their sizes differ by one at most.

    Attributes:
        prepared: The images; pixels where they are augmented.
        labels: Class indices.
        num_batches: In an epoch.
        how: Changes pixels at random.
        architecture: Normalises pixels.
        device: Where the batches go.
        generators: `order` of the images, and `augmentation`.
    """

    prepared: Prepared
    labels: Sequence[int]
    num_batches: int
    how: Augmentation
    architecture: Architecture
    device: str
    generators: Mapping[str, torch.Generator]

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Each image once, in an order drawn anew."""
        labels = torch.tensor(self.labels)
        order = torch.randperm(len(labels), generator=self.generators["order"])
        for chosen in order.tensor_split(self.num_batches):
            x = inputs(
                self.prepared.rows[chosen.numpy()],
                self.prepared.stage,
                self.architecture,
                self.device,
                how=self.how,
                generator=self.generators["augmentation"],
            )
            yield x, labels[chosen].to(self.device)
