"""The U of encoder, decoder and the joins between them, from parts that differ between networks.

Source: Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def double_convolution(num_in: int, num_out: int, *, norm: bool = True) -> nn.Sequential:
    """Twice: 3 x 3 convolution that keeps the size, batch norm unless told otherwise, ReLU."""
    layers: list[nn.Module] = []
    for channels in (num_in, num_out):
        layers.append(nn.Conv2d(channels, num_out, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(num_out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Concatenation(nn.Module):
    """What the encoder kept beside what rises, along the axis of the channels."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, kept: Tensor, rising: Tensor) -> Tensor:
        """The two as one."""
        return torch.cat([kept, rising], dim=self.axis)


class UShape(nn.Module):
    """Encoders and steps down, a bottom, then as many steps up, joins and decoders, and a head.

    Args:
        encoders: From the largest to the smallest; what each gives is kept for its join.
        downs: What follows each encoder and makes its output smaller.
        bottom: At the smallest size.
        ups: From the smallest to the largest, what undoes each step down.
        joins: In the order of `ups`: what was kept and what has risen to one tensor.
        decoders: In the order of `ups`, after each join.
        head: From the last decoder to the logits.
    """

    def __init__(
        self,
        *,
        encoders: Sequence[nn.Module],
        downs: Sequence[nn.Module],
        bottom: nn.Module,
        ups: Sequence[nn.Module],
        joins: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        assert len({len(parts) for parts in (encoders, downs, ups, joins, decoders)}) == 1
        self.encoders = nn.ModuleList(encoders)
        self.downs = nn.ModuleList(downs)
        self.bottom = bottom
        self.ups = nn.ModuleList(ups)
        self.joins = nn.ModuleList(joins)
        self.decoders = nn.ModuleList(decoders)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits of their size, which the steps down must divide."""
        kept: list[Tensor] = []
        for encode, down in zip(self.encoders, self.downs, strict=True):
            kept.append(encode(x))
            x = down(kept[-1])
        x = self.bottom(x)
        for up, join, decode in zip(self.ups, self.joins, self.decoders, strict=True):
            x = decode(join(kept.pop(), up(x)))
        logits: Tensor = self.head(x)
        return logits
