"""Graph networks on superpixels: with a small CNN on pixels, and with none.

Shape suffixes: N images in squares of side G; K superpixels of all images; D dimensions of an
embedding; C classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hemaml.nn.graph_convolutions import Convolution, Graph, graph_convolution
from hemaml.nn.superpixel_convolution import PixelConvolution, SuperpixelConvolution

NUM_FEATURES = 5
"""Of a superpixel: three of colour, two of position."""


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """Images with their superpixels and region graphs.

    Attributes:
        pixels: 3 x N x G x G float, 0 at padding. The last `MARGIN` rows and columns are padding.
        labels: N x G x G int32: superpixels from 0, counted through all images, and K at padding.
        features: K x 5 of the superpixels.
        image_of: K int64, the image of each superpixel.
        graph: Neighbourhoods of the superpixels.
    """

    pixels: Tensor
    labels: Tensor
    features: Tensor
    image_of: Tensor
    graph: Graph

    def to(self, device: str | torch.device) -> "RegionBatch":
        """The same on a device."""
        return RegionBatch(
            self.pixels.to(device),
            self.labels.to(device),
            self.features.to(device),
            self.image_of.to(device),
            self.graph.to(device),
        )


class RegionNetwork(nn.Module):
    """Embeds superpixels by graph convolutions.

    Batch normalisation follows each graph convolution, a rectifier all of them but the last.

    Args:
        width: D.
        layers: Graph convolutions.
        convolution: Their kind.
        neighbours: About the number of neighbours of a superpixel.
        residual: Adds its input to each graph convolution that keeps the width.
        graph_mean: Gives each superpixel the mean features of its image besides its own.

    Attributes:
        a: Scale of the cosine in the metric loss.
        b: Its offset.
    """

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        convolution: Convolution,
        neighbours: float,
        residual: bool,
        graph_mean: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.graph_mean = graph_mean
        first = 2 * NUM_FEATURES if graph_mean else NUM_FEATURES
        self.convolutions = nn.ModuleList(
            graph_convolution(convolution, num_in, width, neighbours=neighbours)
            for num_in in [first] + [width] * (layers - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.a = nn.Parameter(torch.ones(()))
        self.b = nn.Parameter(torch.zeros(()))

    def embed(self, batch: RegionBatch) -> Tensor:
        """K x D embeddings of the superpixels."""
        x_KD = batch.features
        if self.graph_mean:
            x_KD = torch.cat([x_KD, _mean_of_graph(x_KD, batch)], dim=1)
        last = len(self.norms) - 1
        for index, convolution in enumerate(self.convolutions):
            new_KD = convolution(x_KD, batch.graph)
            x_KD = self.norms[index](new_KD + x_KD if self.residual and index else new_KD)
            x_KD = x_KD if index == last else x_KD.relu()
        return x_KD


class SuperpixelNetwork(RegionNetwork):
    """Paints the embeddings of superpixels on their pixels and refines there.

    Args:
        num_classes: C.
        channels: Of the CNN's hidden layer.
        dilation: Of the CNN's second convolution, 1 or 2.
        width: This and all others as in `RegionNetwork`.

    Source: section 3 and figure 5 of the SMGNN paper, which leave the CNN open.
    """

    def __init__(
        self, *, num_classes: int, channels: int, dilation: int, width: int, **embedding: Any
    ) -> None:
        super().__init__(width=width, **embedding)
        self.mix = SuperpixelConvolution(width, channels)
        self.classify = PixelConvolution(channels, num_classes, dilation=dilation)

    def segment(self, embeddings_KD: Tensor, batch: RegionBatch) -> Tensor:
        """N x C x G x G logits; those of padding mean nothing."""
        num, side, _ = batch.labels.shape
        hidden_MH = self.mix(embeddings_KD, batch.labels, batch.pixels)
        logits_CM: Tensor = self.classify(hidden_MH, side)
        return logits_CM.view(-1, num, side, side).transpose(0, 1)

    def forward(self, batch: RegionBatch) -> tuple[Tensor, Tensor]:
        """Logits N x C x G x G and embeddings K x D."""
        embeddings_KD = self.embed(batch)
        return self.segment(embeddings_KD, batch), embeddings_KD


class RegionClassifier(RegionNetwork):
    """Classifies superpixels and paints the logits on their pixels.

    Args:
        num_classes: C.
        width: This and all others as in `RegionNetwork`.

    Source: section 4.4 and figure 10 of the SMGNN paper.
    """

    def __init__(self, *, num_classes: int, width: int, **embedding: Any) -> None:
        super().__init__(width=width, **embedding)
        self.classify = nn.Linear(width, num_classes)

    def forward(self, batch: RegionBatch) -> tuple[Tensor, Tensor]:
        """Logits N x C x G x G, 0 at padding, and embeddings K x D."""
        embeddings_KD = self.embed(batch)
        logits_KC = self.classify(embeddings_KD)
        painted_NGGC = pad(logits_KC, (0, 0, 0, 1))[batch.labels]
        return painted_NGGC.permute(0, 3, 1, 2), embeddings_KD


def _mean_of_graph(x_KD: Tensor, batch: RegionBatch) -> Tensor:
    num = len(batch.labels)
    sums = x_KD.new_zeros(num, x_KD.shape[1]).index_add(0, batch.image_of, x_KD)
    counts = torch.bincount(batch.image_of, minlength=num)[:, None]
    return (sums / counts)[batch.image_of]
