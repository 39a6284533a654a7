"""Swin-Unet: a U of transformer blocks with shifted windows, on patches of 4 x 4 pixels.

Steps down merge 2 x 2 patches, steps up make 2 x 2 patches of one, and what was kept is joined by
a linear layer.

Source: Cao et al., "Swin-Unet", ECCV workshops 2022. Its base form with 128 channels, depths 2, 2,
6, 2, heads 2, 4, 8, 16 and windows of 5 patches, the values that the SMGNN's authors published with
their VGU-Net, has the 73.46 million parameters of the SMGNN paper's table 1. It begins with new
weights here, not with ImageNet's.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torchvision.ops.misc import Permute

from hemaml.nn.u_shape import Concatenation, UShape
from hemaml.objectives.wbc_segmentation._convolutional import (
    ConvolutionalModel,
    ConvolutionalParams,
    objective_of,
)
from hemaml.objectives.wbc_segmentation._images import NUM_CLASSES

PATCH, WINDOW = 4, 5
DEPTHS, HEADS = (2, 2, 6, 2), (2, 4, 8, 16)


class Params(ConvolutionalParams):
    """What can be fixed or searched."""

    multiple: ClassVar[int] = PATCH * 2 ** (len(DEPTHS) - 1)

    stochastic_depth: float = Field(
        default=0.1, ge=0, lt=1, description="Share of images that skip the deepest block."
    )

    def build(self) -> nn.Module:
        """The network with new weights from torch's global generator."""
        first = HEADS[0] * self.channels(64)  # each head of a block has as many
        dims = [first * 2**level for level in range(len(DEPTHS))]
        skips = torch.linspace(0, self.stochastic_depth, sum(DEPTHS), device="cpu").tolist()

        def blocks(level: int) -> nn.Sequential:
            before = sum(DEPTHS[:level])
            return _blocks(dims[level], HEADS[level], skips[before : before + DEPTHS[level]])

        levels = range(len(dims) - 1)
        encoders = [blocks(level) for level in levels]
        return UShape(
            encoders=[nn.Sequential(_patches(dims[0]), encoders[0]), *encoders[1:]],
            downs=[PatchMerging(dims[level]) for level in levels],
            bottom=nn.Sequential(blocks(len(levels)), nn.LayerNorm(dims[-1])),
            ups=[Expansion(dims[level + 1], dims[level], 2) for level in reversed(levels)],
            joins=[Concatenation(axis=-1) for _ in levels],
            decoders=[
                nn.Sequential(nn.Linear(2 * dims[level], dims[level]), blocks(level))
                for level in reversed(levels)
            ],
            head=nn.Sequential(
                nn.LayerNorm(dims[0]),
                Expansion(dims[0], dims[0], PATCH),
                nn.Linear(dims[0], NUM_CLASSES, bias=False),
                Permute([0, 3, 1, 2]),
            ),
        )


class Expansion(nn.Module):
    """N x H x W x D to N x sH x sW x D': a linear layer makes s x s patches of each.

    Args:
        num_in: D.
        num_out: D'.
        factor: s.
    """

    def __init__(self, num_in: int, num_out: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(num_in, factor * factor * num_out, bias=False)
        self.norm = nn.LayerNorm(num_out)

    def forward(self, x: Tensor) -> Tensor:
        """The larger map."""
        rows, columns = x.shape[1] * self.factor, x.shape[2] * self.factor
        parts = self.expand(x).unflatten(3, (self.factor, self.factor, -1))
        moved = parts.permute(0, 1, 3, 2, 4, 5).reshape(len(x), rows, columns, -1)
        normed: Tensor = self.norm(moved)
        return normed


def _patches(dim: int) -> nn.Sequential:
    """N x 3 x H x W to N x H/4 x W/4 x D."""
    return nn.Sequential(
        nn.Conv2d(3, dim, PATCH, stride=PATCH), Permute([0, 2, 3, 1]), nn.LayerNorm(dim)
    )


def _blocks(dim: int, heads: int, skips: list[float]) -> nn.Sequential:
    """A block for each probability to be skipped; every second one shifts its windows."""
    return nn.Sequential(
        *(
            SwinTransformerBlock(
                dim,
                heads,
                window_size=[WINDOW, WINDOW],
                shift_size=[index % 2 * (WINDOW // 2)] * 2,
                stochastic_depth_prob=skip,
            )
            for index, skip in enumerate(skips)
        )
    )


class SwinUnetModel(ConvolutionalModel):
    """A fitted Swin-Unet."""

    params_class = Params


objective = objective_of(
    SwinUnetModel,
    examples=({"width": 1 / 64, "epochs": 2, "validate_every": 1, "batch_size": 4},),
)
