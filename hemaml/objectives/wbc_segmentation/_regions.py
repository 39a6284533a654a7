"""From images to batches of superpixels and region graphs, and what networks on them share.

Shape suffixes: N images in squares of side G; K superpixels; H, W sides of one image.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from hemaml.core.cache import Cache, array_digest
from hemaml.core.types import (
    Arrays,
    Float32Array,
    Frozen,
    Int32Array,
    Int64Array,
    UInt8Array,
)
from hemaml.data.augment import FLIP_COLUMNS, FLIP_ROWS, TRANSPOSE
from hemaml.data.batches import pad_batch
from hemaml.nn.graph_convolutions import Convolution, Graph
from hemaml.nn.superpixel_convolution import MARGIN
from hemaml.nn.superpixel_network import RegionBatch, RegionNetwork
from hemaml.objectives.wbc_segmentation._images import (
    colour_quantiles,
    colour_range,
    normal,
    turned,
)
from hemaml.ops import region_graph
from hemaml.ops import superpixels as superpixel_ops
from hemaml.ops.losses import MetricTarget
from hemaml.ops.snic import Connectivity

VERSION = 1
"""Goes up whenever `regions` changes for the same arguments; part of cache keys."""


class Oversegmentation(Frozen):
    """How an image becomes a graph; all that the regions of an image depend on besides it."""

    method: superpixel_ops.Method
    scale: float
    compactness: float
    connectivity: Connectivity
    alpha: float


class SuperpixelParams(Frozen, ABC):
    """What can be fixed or searched of every model on superpixels."""

    superpixels: superpixel_ops.Method = Field(
        default="snic", description="How superpixels are made."
    )
    scale: float = Field(default=16, ge=1, le=1024, description="Mean pixels per superpixel, S.")
    compactness: float = Field(
        default=5, gt=0, le=1000, description="Weight of position against colour in superpixels."
    )
    connectivity: Connectivity = Field(
        default=8, description="Whether SNIC grows over sides (4) or over corners, too (8)."
    )
    alpha: float = Field(
        default=3, ge=1, le=20, description="Neighbours are nearer than alpha * sqrt(S) pixels."
    )
    colour_stretch: bool = Field(
        default=True, description="Colours relative to the 1 % and 99 % quantiles of the image."
    )
    clean_up: bool = Field(
        default=True, description="Predictions become one cell without holes, see ops.clean_up."
    )

    @property
    def oversegmentation(self) -> Oversegmentation:
        """What the regions of an image depend on."""
        return Oversegmentation(
            method=self.superpixels,
            scale=self.scale,
            compactness=self.compactness,
            connectivity=self.connectivity,
            alpha=self.alpha,
        )

    @abstractmethod
    def build(self) -> nn.Module:
        """What classifies, not trained; draws from torch's global generator where it draws."""


class RegionParams(SuperpixelParams):
    """What can be fixed or searched of every graph network on superpixels."""

    lr: float = Field(default=2e-2, gt=0, le=1, description="Adam's highest learning rate.")
    lambda_: float = Field(
        default=0.1,
        ge=0,
        le=100,
        alias="lambda",
        description="Weight of the metric loss, of levels in 0..1: with the paper's 0..2 (eq. 2.1) "
        "it would be a quarter of this.",
    )
    metric_target: MetricTarget = Field(
        default="paper", description="What similarity of two superpixels the metric loss asks for."
    )
    num_pairs: int = Field(
        default=512, ge=1, le=8192, description="Anchors, and references, of the metric loss."
    )
    conv: Convolution = Field(default="gin", description="Kind of graph convolution.")
    width: int = Field(default=22, ge=1, le=512, description="Dimensions of the embeddings.")
    layers: int = Field(default=3, ge=1, le=16, description="Graph convolutions.")
    residual: bool = Field(default=True, description="Graph convolutions add to their input.")
    graph_mean: bool = Field(
        default=True, description="Each superpixel also sees the mean of all of its image."
    )
    augment: bool = Field(default=True, description="Random flips and quarter turns.")
    epochs: int = Field(default=40, ge=1, le=10_000, description="Passes over the training part.")
    batch_size: int = Field(default=8, ge=1, le=1024, description="Images in a batch.")
    validate_every: int = Field(default=4, ge=1, le=10_000, description="Epochs per validation.")
    weight_decay: float = Field(default=0, ge=0, le=1, description="Adam's L2 penalty.")

    @property
    def embedding(self) -> dict[str, Any]:
        """The arguments of `RegionNetwork`."""
        return {
            "width": self.width,
            "layers": self.layers,
            "convolution": self.conv,
            # Superpixels of size S in a diamond of radius alpha * sqrt(S), area 2 alpha^2 S.
            "neighbours": 2 * self.alpha**2,
            "residual": self.residual,
            "graph_mean": self.graph_mean,
        }

    @abstractmethod
    def build(self) -> RegionNetwork:
        """The network with new weights from torch's global generator."""


@dataclass(frozen=True, slots=True)
class Regions:
    """One image with its superpixels.

    Attributes:
        image: H x W x 3.
        labels: H x W, 0..K-1.
        features: K x 5: mean colour in 0..1, mean row and column in pixels.
        starts: K + 1 places in `neighbours`.
        neighbours: Of all superpixels, one after the other.
        quantiles: 2 x 3, darkest and brightest value of each channel, stray pixels left out.
    """

    image: UInt8Array
    labels: Int32Array
    features: Float32Array
    starts: Int32Array
    neighbours: Int32Array
    quantiles: Float32Array


def regions(image: UInt8Array, how: Oversegmentation, cache: Cache) -> Regions:
    """The superpixels of an image and their graph, from the cache where it has them."""
    if cache.folder is None:
        return Regions(image, **_compute(image, how))
    key: dict[str, object] = {
        "image": array_digest(image),
        "versions": [VERSION, superpixel_ops.VERSION, region_graph.VERSION],
        **how.model_dump(),
    }
    return Regions(image, **cache.arrays("regions", key, lambda: _compute(image, how)))


def _compute(image: UInt8Array, how: Oversegmentation) -> Arrays:
    labels = superpixel_ops.superpixels(
        image,
        scale=how.scale,
        compactness=how.compactness,
        method=how.method,
        connectivity=how.connectivity,
    )
    features = region_graph.node_features(image, labels)
    pixels_each = labels.size / len(features)
    edges = region_graph.radius_edges(features[:, 3:], radius=how.alpha * pixels_each**0.5)
    # Edges are sorted by source: where each source begins is all there is to keep of it.
    starts = np.concatenate([[0], np.bincount(edges[0], minlength=len(features)).cumsum()])
    return {
        "labels": labels,
        "features": features,
        "starts": starts.astype(np.int32),
        "neighbours": edges[1].astype(np.int32),
        "quantiles": colour_quantiles(image),
    }


def collate(items: Sequence[Regions], *, stretch: bool, codes: Tensor | None = None) -> RegionBatch:
    """A batch for the network.

    Args:
        items: N images.
        stretch: Whether colours become -1..1 between the image's own quantiles, or 0..255 does.
        codes: N elements of the dihedral group (`hemaml.data.augment`) that the images are moved
            by. Superpixels and graphs move along: only the positions of the features change.
    """
    counts = [len(item.features) for item in items]
    before = np.concatenate([[0], np.cumsum(counts)])
    num = int(before[-1])
    image_of = torch.from_numpy(np.repeat(np.arange(len(items)), counts))
    low_N3, high_N3 = colour_range([item.quantiles for item in items], stretch=stretch)
    features = _features(items, low_N3[image_of], high_N3[image_of])
    if codes is not None:
        features[:, 3:] = _turned_positions(features[:, 3:], codes[image_of])
    shifted = [i.labels + np.int32(k) for i, k in zip(items, before, strict=False)]
    labels = padded(shifted, codes, fill=num)[:, 0]
    pixels = padded([item.image for item in items], codes)
    values = normal(
        pixels.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format),
        low_N3.t()[:, :, None, None],
        high_N3.t()[:, :, None, None],
    )
    values *= labels < num
    return RegionBatch(values, labels, features, image_of, _graph(items, before))


def padded(images: Sequence[NDArray[Any]], codes: Tensor | None, *, fill: int = 0) -> Tensor:
    """Turned images in the top left of squares, with the margin that the network wants.

    Turning a view before it is copied into its place costs nothing; turning the batch would.

    Args:
        images: N arrays of H x W or H x W x channels.
        codes: N elements of the dihedral group, or None.
        fill: Value of the padding.

    Returns:
        N x channels x G x G.
    """
    moved = images if codes is None else map(turned, images, codes.tolist())
    side = max(max(image.shape[:2]) for image in images) + MARGIN
    return pad_batch([np.atleast_3d(image) for image in moved], side=side, fill=fill)[0]


def _features(items: Sequence[Regions], low_K3: Tensor, high_K3: Tensor) -> Tensor:
    """K x 5: colours as the pixels', positions from the image's centre in halves of its side."""
    features = torch.from_numpy(np.concatenate([item.features for item in items]))
    features[:, :3] = normal(features[:, :3] * 255, low_K3, high_K3)
    shapes = np.array([item.labels.shape for item in items], dtype=np.float32)
    counts = [len(item.features) for item in items]
    centres = np.repeat((shapes - 1) / 2, counts, axis=0)
    halves = np.repeat(shapes.max(axis=1, keepdims=True) / 2, counts, axis=0)
    features[:, 3:] = (features[:, 3:] - torch.from_numpy(centres)) / torch.from_numpy(halves)
    return features


def _turned_positions(positions_K2: Tensor, code_K: Tensor) -> Tensor:
    """Positions from the centre after each one's element of the dihedral group."""
    transposed = (code_K & TRANSPOSE > 0)[:, None]
    moved_K2 = torch.where(transposed, positions_K2.flip(1), positions_K2)
    flips_K2 = torch.stack([code_K & FLIP_ROWS, code_K & FLIP_COLUMNS], dim=1) > 0
    return torch.where(flips_K2, -moved_K2, moved_K2)


def _graph(items: Sequence[Regions], before: Int64Array) -> Graph:
    """All graphs as one: nodes and places in the list of neighbours count on."""
    neighbours = [i.neighbours + np.int32(k) for i, k in zip(items, before, strict=False)]
    ends = np.cumsum([0] + [len(each) for each in neighbours])
    starts = [i.starts[:-1] + np.int32(k) for i, k in zip(items, ends, strict=False)]
    starts.append(ends[-1:].astype(np.int32))
    return Graph(
        torch.from_numpy(np.concatenate(starts)), torch.from_numpy(np.concatenate(neighbours))
    )
