"""VGU-Net: a U-Net whose bottom and two smaller joins pass features along a graph of pixels.

At each of the three, every pixel of the feature map is a node, the weights of all edges are a
softmax over products of two projections of the features, and two graph convolutions follow.

Source: Jiang et al., "Vision graph U-Net", Inverse Problems and Imaging 2023, and the authors'
published network, whose 4.99 million parameters at 64 channels are those of the SMGNN paper's
table 1. Theirs also drops features when it predicts; this one in training alone.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from hemaml.nn.u_shape import Concatenation
from hemaml.objectives.wbc_segmentation._convolutional import (
    ConvolutionalModel,
    ConvolutionalParams,
    objective_of,
)
from hemaml.objectives.wbc_segmentation.unet import unet


class Params(ConvolutionalParams):
    """What can be fixed or searched."""

    multiple: ClassVar[int] = 8

    dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Share of features dropped after a graph convolution."
    )

    def build(self) -> nn.Module:
        """The network with new weights from torch's global generator."""
        widths = [self.channels(width) for width in (64, 128, 256)]
        joins = [PixelGraphJoin(width, self.dropout) for width in widths[:0:-1]]
        bottom = PixelGraph(widths[-1], self.dropout)
        return unet(widths, bottom, [*joins, Concatenation()])


class PixelGraph(nn.Module):
    """Two graph convolutions over all pixels of a map, on a graph that its features make.

    The adjacency, as large as pixels squared, is never held: a product with it is attention.

    Args:
        channels: D, in and out.
        dropout: Share of features dropped after each convolution.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.convolutions = nn.ModuleList(nn.Linear(channels, channels) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps_NDHW: Tensor) -> Tensor:
        """N x D x H x W to the same shape."""
        projected = self.project(maps_NDHW).flatten(2).transpose(1, 2)[:, None]
        query, key, x = projected.chunk(3, dim=-1)  # N x 1 x pixels x D
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(scaled_dot_product_attention(query, key, x, scale=1.0))
            x = self.dropout(norm(x.flatten(0, 2)).relu()).view_as(x)
        maps: Tensor = x[:, 0].transpose(1, 2).reshape(maps_NDHW.shape)
        return maps


class PixelGraphJoin(Concatenation):
    """What the encoder kept passes a graph before it stands beside what rises."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.graph = PixelGraph(channels, dropout)

    def forward(self, kept: Tensor, rising: Tensor) -> Tensor:
        """The two as one."""
        return super().forward(self.graph(kept), rising)


class VguNetModel(ConvolutionalModel):
    """A fitted VGU-Net."""

    params_class = Params


objective = objective_of(
    VguNetModel,
    examples=(
        {"width": 1 / 32, "epochs": 2, "validate_every": 1, "batch_size": 4},
        {"width": 1 / 32, "epochs": 1, "dropout": 0, "colour_stretch": False},
    ),
)
