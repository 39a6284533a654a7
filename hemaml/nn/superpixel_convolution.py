"""Convolutions over padded images as products of matrices, fast on few channels.

A library's convolution is made for tens or hundreds of channels. With 16 of them and 3 classes
most of its width is idle, so these two are written as matrix products between shifted lines of
pixels; on one core they take a third of the time, forwards and backwards.

Images are read as one line, in which a row follows the row above and an image the last. Between
the borders of two rows or images lie at least `MARGIN` pixels of padding, so that a tap that leaves
its image reads padding.

Shape suffixes: N images in squares of side G; M pixels, N * G * G; K superpixels of all images; D
features of a superpixel; H hidden channels; C classes; T taps, 9, in reading order.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, embedding_bag, pad
from torch.nn.grad import conv2d_weight

from hemaml.core.compiled import compiled
from hemaml.core.types import Float32Array, Int32Array, Int64Array

MARGIN = 2
"""Rows and columns of padding that each image has at its right and bottom, at least."""
NUM_TAPS = 9
OUTSIDE = -1e4
"""What stands at padding: so far below zero that the rectifier makes it 0 whatever is added."""


threshold_backward = torch.ops.aten.threshold_backward


class SuperpixelConvolution(nn.Module):
    """A rectified 3 x 3 convolution of superpixel features, painted on the pixels, and colours.

    To paint the features and convolve them would cost 9 * D * H products a pixel. Each product
    depends on the superpixel and the tap alone, so they are taken once a superpixel, and a pixel
    sums nine rows of that table: the same result for a fraction of the work.

    Args:
        num_features: D.
        num_out: H.
    """

    def __init__(self, num_features: int, num_out: int) -> None:
        super().__init__()
        bound = ((num_features + 3) * NUM_TAPS) ** -0.5
        self.of_superpixels = _uniform(bound, NUM_TAPS * num_out, num_features)
        self.of_colours = _uniform(bound, num_out, 3, 3, 3)
        self.bias = _uniform(bound, num_out)

    def forward(self, features_KD: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        """M x H, 0 at padding.

        Args:
            features_KD: One vector a superpixel.
            labels: N x G x G int32: 0..K-1, and K at padding.
            pixels: 3 x N x G x G colours, 0 at padding.
        """
        parameters = (self.of_superpixels, self.of_colours, self.bias)
        out: Tensor = _SuperpixelConvolution.apply(features_KD, labels, pixels, *parameters)
        return out


class PixelConvolution(nn.Module):
    """A 3 x 3 convolution to few channels.

    Args:
        num_in: H.
        num_out: C.
        dilation: Pixels from tap to tap, at most `MARGIN`: 2 reaches further for no parameters.
    """

    def __init__(self, num_in: int, num_out: int, *, dilation: int) -> None:
        super().__init__()
        assert dilation <= MARGIN
        self.dilation = dilation
        bound = (num_in * NUM_TAPS) ** -0.5
        self.weight = _uniform(bound, NUM_TAPS * num_out, num_in)
        self.bias = _uniform(bound, num_out)

    def forward(self, hidden_MH: Tensor, side: int) -> Tensor:
        """C x M; what it gives at padding means nothing.

        Args:
            hidden_MH: Features of the pixels, 0 at padding.
            side: G.
        """
        out: Tensor = _PixelConvolution.apply(hidden_MH, self.weight, side, self.dilation)
        return out + self.bias[:, None]


def _uniform(bound: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class _SuperpixelConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        labels: Tensor,
        pixels: Tensor,
        of_superpixels: Tensor,
        of_colours: Tensor,
        bias: Tensor,
    ) -> Tensor:
        num_out = len(bias)
        products = features.new_empty(len(features) + 1, NUM_TAPS * num_out)
        products[-1] = 0
        torch.mm(features, of_superpixels.t(), out=products[:-1])
        centre = products.view(-1, NUM_TAPS, num_out)[:, NUM_TAPS // 2]
        centre[:-1] += bias
        centre[-1] = OUTSIDE
        rows_MT = _table_rows(labels, outside=len(features))
        out = embedding_bag(rows_MT, products.view(-1, num_out), mode="sum")
        images = pixels.transpose(0, 1).contiguous(memory_format=torch.channels_last)
        colours = conv2d(images, of_colours, padding=1)
        out.add_(colours.permute(0, 2, 3, 1).reshape(-1, num_out)).relu_()
        ctx.save_for_backward(features, labels, images, of_superpixels, of_colours, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        features, labels, images, of_superpixels, of_colours, out = ctx.saved_tensors
        num, side, _ = labels.shape
        margin = side + 1
        num_pixels, num_out = out.shape
        line = out.new_empty(num_pixels + 2 * margin, num_out)
        line[:margin] = line[-margin:] = 0
        grad_MH = line[margin:-margin]
        threshold_backward.grad_input(grads[0], out, 0, grad_input=grad_MH)
        grad_images = grad_MH.view(num, side, side, num_out).permute(0, 3, 1, 2)
        kernel = conv2d_weight(images, of_colours.shape, grad_images, padding=1)  # type: ignore[no-untyped-call]
        table = _table_gradient(line, labels, len(features))
        bias = table.view(-1, NUM_TAPS, num_out)[:, NUM_TAPS // 2].sum(0)
        return (
            table @ of_superpixels,
            None,
            None,
            table.t() @ features,
            kernel,
            bias,
        )


def _table_gradient(line: Tensor, labels: Tensor, count: int) -> Tensor:
    """K x (T * H): for each superpixel and tap the sum of the gradients of the pixels it went to.

    Tap t of pixel p reads pixel p + t; so pixel q of a superpixel was read by pixel q - t.

    Args:
        line: Gradient of the pixels, with side + 1 rows of zeros before and after.
        labels: N x G x G.
        count: K.
    """
    side, num_out = labels.shape[2], line.shape[1]
    places = [side + 1 - offset for offset in _offsets(side)]
    table = line.new_zeros(count + 1, NUM_TAPS * num_out)  # the last row is the padding's
    if line.device.type == "cpu":
        _add_rows(line.numpy(), labels.view(-1).numpy(), np.array(places), table.numpy())
    else:
        _add_rows_anywhere(line, labels.view(-1), places, table)
    return table[:-1]


def _add_rows_anywhere(line: Tensor, labels: Tensor, places: list[int], table: Tensor) -> None:
    """Adds to each superpixel's row, tap by tap, the lines that its pixels were read by."""
    for place, part in zip(places, table.chunk(NUM_TAPS, dim=1), strict=True):
        part.index_add_(0, labels, line[place : place + len(labels)])


@compiled
def _add_rows(
    line: Float32Array, labels: Int32Array, places: Int64Array, table: Float32Array
) -> None:
    """As `_add_rows_anywhere`, in one pass over the pixels: on a CPU in a third of the time."""
    outside, num_out = len(table) - 1, line.shape[1]
    for pixel in range(len(labels)):
        label = labels[pixel]
        if label < outside:
            for tap in range(len(places)):
                place = pixel + places[tap]
                for channel in range(num_out):
                    table[label, tap * num_out + channel] += line[place, channel]


class _PixelConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, side: int, dilation: int) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.offsets = offsets = _offsets(side, dilation)
        # Products of each pixel with all taps, then each tap's plane is added where it belongs.
        # With rows of zeros up to a multiple of 16, MKL takes a third of the time.
        rows = pad(weight, (0, 0, 0, -len(weight) % 16)) @ hidden.t()
        planes = rows[: len(weight)].view(NUM_TAPS, -1, len(hidden))
        out = planes[NUM_TAPS // 2].clone()
        for plane, offset in zip(planes, offsets, strict=True):
            if offset > 0:
                out[:, :-offset] += plane[:, offset:]
            elif offset < 0:
                out[:, -offset:] += plane[:, :offset]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight = ctx.saved_tensors
        planes = torch.cat(_shifts(grads[0], [-offset for offset in ctx.offsets]))
        return planes.t() @ weight, planes @ hidden, None, None


def _table_rows(labels: Tensor, *, outside: int) -> Tensor:
    """M x T int32: row of the table that each tap of each pixel reads; `outside` is padding."""
    side = labels.shape[2]
    line = labels.view(1, -1) * NUM_TAPS
    shifts = _shifts(line, _offsets(side), beyond=outside * NUM_TAPS)
    rows = labels.new_empty(labels.numel(), NUM_TAPS)
    for tap, shift in enumerate(shifts):
        torch.add(shift[0], tap, out=rows[:, tap])
    return rows


def _shifts(lines: Tensor, offsets: list[int], *, beyond: int = 0) -> list[Tensor]:
    """For each tap what lies `offset` further in each line, channels x M; views of one copy."""
    margin, length = max(offsets), lines.shape[1]
    longer = pad(lines, (margin, margin), value=beyond)
    return [longer[:, margin + offset :][:, :length] for offset in offsets]


def _offsets(side: int, dilation: int = 1) -> list[int]:
    """Where the taps read, relative to their pixel, in a line of rows."""
    steps = (-dilation, 0, dilation)
    return [row * side + column for row in steps for column in steps]
