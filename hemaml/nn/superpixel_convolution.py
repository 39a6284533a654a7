"""A 3 x 3 convolution over an image that has one feature vector a superpixel.

Painting the vectors on the pixels and convolving them would cost 9 * D * C products a pixel. Each
product depends on the superpixel and the tap alone, so they are taken once a superpixel, and a
pixel sums nine rows of that table: the same result for a fraction of the work.

Shape suffixes: N images in squares of side G; K superpixels of all images; D features in; C out; M
pixels, N * G * G; T taps, 9.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

NUM_TAPS = 9
OUTSIDE = -1e4
"""What stands at padding: so far below zero that a rectifier makes it 0 whatever is added."""


class SuperpixelConvolution(nn.Module):
    """Convolution with padding of zeros, without bias.

    Args:
        num_in: D.
        num_out: C.
    """

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        bound = (num_in * NUM_TAPS) ** -0.5
        weight = torch.empty(NUM_TAPS, num_out, num_in).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        """T x C x D: taps in reading order."""

    def forward(self, features_KD: Tensor, labels: Tensor) -> Tensor:
        """N x C x G x G, channels last: the convolution, and `OUTSIDE` at pixels of padding.

        Args:
            features_KD: One vector a superpixel.
            labels: N x G x G int32: 0..K-1, and K at padding. The last row and the last column are
                padding, so that pixels of two images or of two borders never touch.
        """
        out: Tensor = _Convolve.apply(features_KD, self.weight, labels)  # type: ignore[no-untyped-call]
        return out


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, labels)
        num, side, _ = labels.shape
        _, num_out, num_in = weight.shape
        products = features @ weight.reshape(NUM_TAPS * num_out, num_in).t()
        nothing = products.new_zeros(1, NUM_TAPS, num_out)
        nothing[:, NUM_TAPS // 2] = OUTSIDE
        table = torch.cat([products, nothing.view(1, -1)]).view(-1, num_out)
        rows_MT = _windows(labels) * NUM_TAPS
        rows_MT += torch.arange(NUM_TAPS, dtype=torch.int32, device=labels.device)
        out = embedding_bag(rows_MT, table, mode="sum")
        return out.view(num, side, side, num_out).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        features, weight, labels = ctx.saved_tensors
        _, num_out, num_in = weight.shape
        grad_MC = grads[0].permute(0, 2, 3, 1).reshape(-1, num_out)
        table = _table_gradient(grad_MC, labels, len(features))
        flat_weight = weight.reshape(NUM_TAPS * num_out, num_in)
        return table @ flat_weight, (table.t() @ features).view_as(weight), None


def _table_gradient(grad_MC: Tensor, labels: Tensor, count: int) -> Tensor:
    """Gradient of the table, K x (T * C): for each superpixel and tap the sum over the pixels.

    Tap t of pixel p reads pixel p + t; so pixel q of a superpixel was read by pixel q - t.
    """
    num_pixels = labels.numel()
    sorted_M, order_M = torch.sort(labels.view(-1), stable=True)
    # The last bag is the padding's, which nobody asks for.
    bags = torch.arange(count + 2, dtype=torch.int32, device=labels.device)
    starts = torch.searchsorted(sorted_M, bags, out_int32=True)
    order_M = order_M.to(torch.int32)
    sums = []
    for offset in _offsets(labels.shape[2]):
        readers_M = order_M - offset
        # Beyond the first or last pixel: any pixel of padding will do, its gradient is 0.
        readers_M = torch.where(
            (readers_M < 0) | (readers_M >= num_pixels), num_pixels - 1, readers_M
        )
        bag = embedding_bag(readers_M, grad_MC, starts, mode="sum", include_last_offset=True)
        sums.append(bag[:count])
    return torch.stack(sums, dim=1).view(count, -1)


def _windows(labels: Tensor) -> Tensor:
    """M x T labels of the pixels around each pixel.

    The image is read as one line, where a row follows the row above, and a new image the last: the
    pixels of padding between them keep borders apart.
    """
    side = labels.shape[2]
    margin = side + 1
    padding = labels[-1, -1, -1].expand(margin)
    line = torch.cat([padding, labels.reshape(-1), padding])
    windows = line.as_strided((labels.numel(), 3, 3), (1, side, 1))
    return windows.reshape(-1, NUM_TAPS)


def _offsets(side: int) -> list[int]:
    """Where the taps read, relative to their pixel, in a line of rows."""
    return [row * side + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
