"""Images as a partly frozen network takes them: pixels, or what its lower stages made of them.

A *view* is a square that the network sees of an image: the whole image scaled, or one of its tiles.

Shape suffixes: N images, V views of an image, S side of a view.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemaml.core.cache import Cache
from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context
from hemaml.core.rows import Rows
from hemaml.core.types import UInt8Array
from hemaml.data.augment_affine import Augmentation, augment, draw
from hemaml.data.pixels import resized, scaled
from hemaml.data.tiles import frames, grid_places, grid_tiles, tiled
from hemaml.nn.backbones import Architecture, Loaded
from hemaml.nn.embeddings import activations, from_rows
from hemaml.tasks._classification import View


@dataclass(frozen=True, slots=True)
class Views:
    """How images become views.

    Attributes:
        side: S, in pixels.
        tiles: Tiles of an image at full resolution; 0 for the whole image, scaled.
    """

    side: int
    tiles: int = 0

    @property
    def num(self) -> int:
        """V."""
        return max(self.tiles, 1)

    def cut(self, image: UInt8Array) -> list[View]:
        """The views of an image of any size. Raises `DataError` where it is less than a tile."""
        height, width = image.shape[:2]
        if not self.tiles:
            return [View(0, 0, height, width, scaled(image, self.side))]
        places = grid_places(height, width, self.tiles, self.side)
        pixels = grid_tiles(image, self.tiles, self.side)
        return [
            View(top, left, self.side, self.side, tile)
            for (top, left), tile in zip(places, pixels, strict=True)
        ]

    def rows(self, images: Sequence[UInt8Array], digests: Sequence[str], cache: Cache) -> Rows:
        """The pixels of all views, (N V) x S x S x 3, from the cache; see `hemaml.data.tiles`."""
        if self.tiles:
            return tiled(images, digests, self.tiles, self.side, cache)
        return resized(images, digests, self.side, cache)

    def keys(self, digests: Sequence[str]) -> Sequence[str]:
        """A digest for each view."""
        if not self.tiles:
            return digests
        return [f"{digest}-{self.tiles}-{tile}" for digest in digests for tile in range(self.tiles)]


@dataclass(frozen=True, slots=True)
class Prepared:
    """All images of a set.

    Attributes:
        images: Of the set; known again as this very object.
        rows: (N V) x S x S x 3 uint8 where `stage` is 0, else rows of `activations`; whole images,
            N x H x W x 3, where `at_random`.
        stage: Stages that are behind the rows.
        num_views: V.
        at_random: Side of the tiles that are cut anew each time; 0 where rows are views.
    """

    images: Sequence[UInt8Array]
    rows: Rows
    stage: int
    num_views: int = 1
    at_random: int = 0

    def batches(self, num: int) -> Iterator[NDArray[Any]]:
        """The views of all images in order, of `num` images at a time."""
        return self.rows.batches(num * self.num_views)

    def of(self, items: Tensor, generator: torch.Generator) -> NDArray[Any]:
        """The views of some images, V in a row for each."""
        if self.at_random:
            return self._cut(items, generator)
        first = items.numpy()[:, None] * self.num_views
        return self.rows[(first + np.arange(self.num_views)).ravel()]

    def _cut(self, items: Tensor, generator: torch.Generator) -> NDArray[Any]:
        """Only what is cut is read from disk."""
        height, width, _ = self.rows.row_shape
        side, num = self.at_random, len(items) * self.num_views
        room = torch.tensor([height - side + 1, width - side + 1])
        corners = (torch.rand(num, 2, generator=generator) * room).long().tolist()
        places = self.rows.places[items.numpy().repeat(self.num_views)]
        cut = [
            self.rows.table[place, top : top + side, left : left + side]
            for place, (top, left) in zip(places, corners, strict=True)
        ]
        return np.stack(cut)


def prepared(data: Dataset, loaded: Loaded, views: Views, stage: int, context: Context) -> Prepared:
    """The views of a set behind the lowest `stage` stages, from the cache."""
    digests = data.contents()
    rows = views.rows(data.images, digests, context.cache)
    if stage:
        cache, device, keys = context.cache, context.device, views.keys(digests)
        side = views.side
        rows = activations(loaded, rows, keys, cache, size=side, device=device, stage=stage)
    return Prepared(data.images, rows, stage, views.num)


def prepared_at_random(data: Dataset, views: Views, context: Context) -> Prepared:
    """A set of which other tiles are cut each time.

    Raises:
        DataError: Its images differ in size, or are smaller than a tile.
    """
    rows = frames(data.images, data.contents(), views.side, context.cache)
    return Prepared(data.images, rows, 0, views.num, at_random=views.side)


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
    """An epoch's batches: what the network takes, and a label a view. Sizes differ by one image.

    Attributes:
        prepared: The images; pixels where they are augmented.
        labels: Class indices of the images.
        num_batches: In an epoch.
        how: Changes pixels at random.
        architecture: Normalises pixels.
        device: Where the batches go.
        generators: `order` of the images, and `augmentation`, which places tiles, too.
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
        labels, drawn = torch.tensor(self.labels), self.generators["augmentation"]
        order = torch.randperm(len(labels), generator=self.generators["order"])
        for chosen in order.tensor_split(self.num_batches):
            x = inputs(
                self.prepared.of(chosen, drawn),
                self.prepared.stage,
                self.architecture,
                self.device,
                how=self.how,
                generator=drawn,
            )
            yield x, labels[chosen].repeat_interleave(self.prepared.num_views).to(self.device)
