"""Attention U-Net: what the encoder kept is weighed, pixel by pixel, by what rises beside it.

Source: Oktay et al., "Attention U-Net", MIDL 2018, in the form of the widely used implementation
in PyTorch whose 34.88 million parameters are those of the SMGNN paper's table 1: gates at the
size of what they weigh, steps up by repeated pixels and a convolution.
"""

from typing import ClassVar

from torch import Tensor, nn

from hemaml.nn.u_shape import Concatenation, UShape, double_convolution
from hemaml.objectives.wbc_segmentation._convolutional import (
    ConvolutionalModel,
    ConvolutionalParams,
    objective_of,
)
from hemaml.objectives.wbc_segmentation._images import NUM_CLASSES


class Params(ConvolutionalParams):
    """What can be fixed or searched."""

    multiple: ClassVar[int] = 16

    def build(self) -> nn.Module:
        """The network with new weights from torch's global generator."""
        widths = [self.channels(width) for width in (64, 128, 256, 512, 1024)]
        falling = list(zip([3, *widths], widths, strict=False))
        rising = [(below, above) for above, below in falling[:0:-1]]
        return UShape(
            encoders=[double_convolution(a, b) for a, b in falling[:-1]],
            downs=[nn.MaxPool2d(2) for _ in rising],
            bottom=double_convolution(*falling[-1]),
            ups=[_up(a, b) for a, b in rising],
            joins=[GatedJoin(above) for _, above in rising],
            decoders=[double_convolution(2 * above, above) for _, above in rising],
            head=nn.Conv2d(widths[0], NUM_CLASSES, 1),
        )


class GatedJoin(Concatenation):
    """Weighs what was kept by a gate from both, then stands the two side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.of_kept = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden))
        self.of_rising = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden))
        self.gate = nn.Sequential(nn.Conv2d(hidden, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, kept: Tensor, rising: Tensor) -> Tensor:
        """The two as one."""
        weights = self.gate((self.of_kept(kept) + self.of_rising(rising)).relu())
        return super().forward(kept * weights, rising)


def _up(num_in: int, num_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(num_in, num_out, 3, padding=1),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
    )


class AttentionUnetModel(ConvolutionalModel):
    """A fitted Attention U-Net."""

    params_class = Params


objective = objective_of(
    AttentionUnetModel,
    examples=({"width": 1 / 64, "epochs": 2, "validate_every": 1, "batch_size": 4},),
)
