"""RU-Net: the original U-Net, whose softmax prefers regions with short boundaries.

The last activation solves, for logits o of a pixel's classes,

    min over A of  -<A, o> + <A, log A> + tv * sum over classes of TV(A),   A a distribution,

so that total variation regularises the prediction while the network learns, not after it. With
the dual of total variation, a field eta of two numbers of length at most tv for each pixel and
class, the minimum is softmax(o - div eta), and eta follows from projected gradient steps.

Source: Jia, Liu and Tai, "A regularized convolutional neural network for semantic image
segmentation", Analysis and Applications 2021 (arXiv:1907.05287), whose method this is; the weight
and the number of steps are ours. The SMGNN paper's 31.03 million parameters are those of the U-Net
of Ronneberger et al. 2015 without batch norm, hence its initial weights.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from hemaml.nn.u_shape import Concatenation, UShape, double_convolution
from hemaml.objectives.wbc_segmentation._convolutional import (
    ConvolutionalModel,
    ConvolutionalParams,
    objective_of,
)
from hemaml.objectives.wbc_segmentation._images import NUM_CLASSES

STEP = 0.25
"""Of the dual ascent: with a softmax 1/2-Lipschitz and |div|^2 at most 8, the largest safe one."""


class Params(ConvolutionalParams):
    """What can be fixed or searched."""

    multiple: ClassVar[int] = 16

    tv: float = Field(
        default=0.5, ge=0, le=100, description="Weight of total variation in the activation."
    )
    tv_steps: int = Field(
        default=10, ge=0, le=1000, description="Steps of the activation; 0 leaves the softmax."
    )

    def build(self) -> nn.Module:
        """The network with new weights from torch's global generator."""
        widths = [self.channels(width) for width in (64, 128, 256, 512, 1024)]
        falling = list(zip([3, *widths], widths, strict=False))
        rising = [(below, above) for above, below in falling[:0:-1]]
        head = nn.Conv2d(widths[0], NUM_CLASSES, 1)
        network = UShape(
            encoders=[double_convolution(a, b, norm=False) for a, b in falling[:-1]],
            downs=[nn.MaxPool2d(2) for _ in rising],
            bottom=double_convolution(*falling[-1], norm=False),
            ups=[nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in rising],
            joins=[Concatenation() for _ in rising],
            decoders=[double_convolution(2 * above, above, norm=False) for _, above in rising],
            head=nn.Sequential(head, TotalVariation(self.tv, self.tv_steps)),
        )
        return network.apply(_start)


class TotalVariation(nn.Module):
    """Logits to those whose softmax is the regularised one.

    Args:
        weight: Of total variation against logits and entropy.
        steps: Dual ascent steps.
    """

    def __init__(self, weight: float, steps: int) -> None:
        super().__init__()
        self.weight = weight
        self.steps = steps

    def forward(self, logits_NCHW: Tensor) -> Tensor:
        """N x C x H x W to the same shape."""
        o = logits_NCHW.float()
        if self.weight == 0 or self.steps == 0:
            return o
        eta = o.new_zeros(2, *o.shape)
        for _ in range(self.steps):
            eta = eta - STEP * gradient((o - divergence(eta)).softmax(dim=1))
            length = torch.linalg.vector_norm(eta, dim=0)
            eta = eta * (self.weight / length.clamp(min=self.weight))
        return o - divergence(eta)


def gradient(field: Tensor) -> Tensor:
    """2 x ... x H x W: what each pixel's lower and right neighbour is more than it; 0 at edges."""
    down = pad(field.diff(dim=-2), (0, 0, 0, 1))
    right = pad(field.diff(dim=-1), (0, 1))
    return torch.stack([down, right])


def divergence(eta: Tensor) -> Tensor:
    """... x H x W, the negative adjoint of `gradient`."""
    down, right = eta[0][..., :-1, :], eta[1][..., :-1]
    return (
        pad(down, (0, 0, 0, 1)) - pad(down, (0, 0, 1, 0)) + pad(right, (0, 1)) - pad(right, (1, 0))
    )


def _start(module: nn.Module) -> None:
    """Weights that keep deviations through layers of ReLU, as Ronneberger et al. draw them."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class RUnetModel(ConvolutionalModel):
    """A fitted RU-Net."""

    params_class = Params


objective = objective_of(
    RUnetModel,
    examples=(
        {"width": 1 / 64, "epochs": 2, "validate_every": 1, "batch_size": 4},
        {"width": 1 / 64, "epochs": 1, "tv_steps": 0},
    ),
)
