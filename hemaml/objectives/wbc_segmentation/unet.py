"""U-Net in the size of the SMGNN paper: three strided steps down and a bottom of 256 channels.

Source: Ronneberger, Fischer and Brox, "U-Net", MICCAI 2015, in the form that the authors of the
SMGNN compare with: VGU-Net (Jiang et al. 2023, `vgu_net`) with convolutions in place of its
graphs, so steps down are convolutions of stride 2 and the bottom is not doubled. That has 5.42
million parameters, the paper's table 1 says 5.43.
"""

from typing import ClassVar

from torch import nn

from hemaml.nn.u_shape import Concatenation, UShape, double_convolution
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
        widths = [self.channels(width) for width in (64, 128, 256)]
        return unet(widths, double_convolution(widths[-1], widths[-1]), [Concatenation()] * 3)


def unet(widths: list[int], bottom: nn.Module, joins: list[Concatenation]) -> UShape:
    """The U of this U-Net and of VGU-Net.

    Args:
        widths: Channels of the three encoders, from the largest map to the smallest.
        bottom: Keeps the last width.
        joins: Give twice the channels of their encoder, from the smallest map to the largest.
    """
    rising = widths[::-1]
    return UShape(
        encoders=[double_convolution(a, b) for a, b in zip([3, *widths], widths, strict=False)],
        downs=[nn.Conv2d(width, width, 2, stride=2, bias=False) for width in widths],
        bottom=bottom,
        ups=[
            nn.ConvTranspose2d(a, b, 2, stride=2)
            for a, b in zip([rising[0], *rising], rising, strict=False)
        ],
        joins=joins,
        decoders=[double_convolution(2 * width, width) for width in rising],
        head=nn.Conv2d(widths[0], NUM_CLASSES, 1),
    )


class UnetModel(ConvolutionalModel):
    """A fitted U-Net."""

    params_class = Params


objective = objective_of(
    UnetModel,
    examples=(
        {"width": 1 / 32, "epochs": 2, "validate_every": 1, "batch_size": 4},
        {
            "width": 1 / 32,
            "epochs": 2,
            "cross_entropy": 1,
            "augment": False,
            "clean_up": False,
            "precision": "bfloat16",
        },
    ),
)
