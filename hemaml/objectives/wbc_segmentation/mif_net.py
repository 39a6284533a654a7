"""MIF-Net: a shallow network that splits boundaries from interiors and fuses all of its scales.

Steps down are strided convolutions. What each scale kept is split into its local mean and the rest,
where the boundaries are, and each has a convolution of its own before the two go to the decoder.
At the bottom the features of all scales meet, each brought there by one strided convolution.

Source: Akram et al., "Exploiting the multiscale information fusion capabilities for aiding the
leukemia diagnosis through white blood cells segmentation", IEEE Access 2022, as far as the SMGNN
paper tells of it: a boundary splitter, fusion of scales, strided convolutions, 2.67 million
parameters. The layers' order and widths are ours, chosen to meet that number within 2 %; the
original's table of layers was not at hand.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from hemaml.nn.u_shape import double_convolution
from hemaml.objectives.wbc_segmentation._convolutional import (
    ConvolutionalModel,
    ConvolutionalParams,
    objective_of,
)
from hemaml.objectives.wbc_segmentation._images import NUM_CLASSES


class Params(ConvolutionalParams):
    """What can be fixed or searched."""

    multiple: ClassVar[int] = 8

    def build(self) -> nn.Module:
        """The network with new weights from torch's global generator."""
        return MifNet([self.channels(width) for width in (32, 64, 128, 256)])


class MifNet(nn.Module):
    """The network; see the module.

    Args:
        widths: Channels of the scales, from the largest map to the smallest.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        *kept, bottom = widths
        self.first = double_convolution(3, widths[0])
        self.downs = nn.ModuleList(
            nn.Sequential(_convolution(a, b, stride=2), _convolution(b, b))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.fusion = ScaleFusion(kept, bottom)
        self.splitters = nn.ModuleList(BoundarySplitter(width) for width in kept[::-1])
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2)
            for b, a in zip(widths[:0:-1], kept[::-1], strict=True)
        )
        self.decoders = nn.ModuleList(double_convolution(2 * width, width) for width in kept[::-1])
        self.head = nn.Conv2d(widths[0], NUM_CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W colours to N x C x H x W logits."""
        scales = [self.first(x)]
        for down in self.downs:
            scales.append(down(scales[-1]))
        x = self.fusion(scales)
        parts = zip(self.ups, self.splitters, self.decoders, scales[-2::-1], strict=True)
        for up, split, decode, kept in parts:
            x = decode(torch.cat([split(kept), up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


class BoundarySplitter(nn.Module):
    """Local means and what they leave, each convolved by itself, then mixed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_interior = _convolution(channels, channels)
        self.of_boundary = _convolution(channels, channels)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """N x D x H x W to the same shape."""
        interior = avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        parts = [self.of_interior(interior), self.of_boundary(x - interior)]
        mixed: Tensor = self.mix(torch.cat(parts, dim=1))
        return mixed


class ScaleFusion(nn.Module):
    """All scales at the size of the smallest.

    Args:
        kept: Channels of the larger scales, each map twice as large as the next.
        bottom: Channels of the smallest, and of the result.
    """

    def __init__(self, kept: Sequence[int], bottom: int) -> None:
        super().__init__()
        part = max(1, bottom // 4)
        strides = [2 ** (len(kept) - index) for index in range(len(kept))]
        self.bring = nn.ModuleList(
            nn.Conv2d(width, part, stride, stride=stride)
            for width, stride in zip(kept, strides, strict=True)
        )
        self.mix = _convolution(part * len(kept) + bottom, bottom, size=1)

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """Maps from the largest to the smallest, to one of the smallest's shape."""
        *larger, smallest = scales
        brought = [bring(x) for bring, x in zip(self.bring, larger, strict=True)]
        mixed: Tensor = self.mix(torch.cat([*brought, smallest], dim=1))
        return mixed


def _convolution(num_in: int, num_out: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
    )


class MifNetModel(ConvolutionalModel):
    """A fitted MIF-Net."""

    params_class = Params


objective = objective_of(
    MifNetModel,
    examples=({"width": 1 / 32, "epochs": 2, "validate_every": 1, "batch_size": 4},),
)
