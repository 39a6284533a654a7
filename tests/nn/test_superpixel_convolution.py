"""Both convolutions against torch's on painted images, in double precision, with their gradients.

Shape suffixes as in the module.
"""

import pytest
import torch
from torch.nn.functional import conv2d, pad

from hemaml.nn import superpixel_convolution
from hemaml.nn.superpixel_convolution import (
    MARGIN,
    PixelConvolution,
    SuperpixelConvolution,
    _add_rows_anywhere,
    _table_gradient,
)

NUM, FEATURES, HIDDEN, CLASSES = 3, 4, 6, 3
SIDE = 7 + MARGIN


@pytest.fixture
def case():
    """Three images, of which one is smaller and lies at the bottom left, as a turned one may."""
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (NUM, 7, 7)) + 5 * torch.arange(NUM)[:, None, None]
    count = 5 * NUM
    labels[1, :2] = labels[1, :, 4:] = count
    labels = pad(labels, (0, MARGIN, 0, MARGIN), value=count).to(torch.int32)
    inside = (labels < count)[:, None].double()
    colours = torch.randn(NUM, 3, SIDE, SIDE, dtype=torch.double) * inside
    features = torch.randn(count, FEATURES, dtype=torch.double, requires_grad=True)
    return labels, inside, colours, features


def as_kernel(weight, num_in, num_out):
    return weight.view(3, 3, num_out, num_in).permute(2, 3, 0, 1)


def expected(mix, classify, case):
    labels, inside, colours, features = case
    nothing = torch.zeros(1, FEATURES, dtype=torch.double)
    painted = torch.cat([features, nothing])[labels.long()].permute(0, 3, 1, 2)
    of_superpixels = as_kernel(mix.of_superpixels, FEATURES, HIDDEN)
    kernel = torch.cat([of_superpixels, mix.of_colours], dim=1)
    stacked = torch.cat([painted, colours], dim=1)
    hidden = conv2d(stacked, kernel, mix.bias, padding=1).relu() * inside
    kernel = as_kernel(classify.weight, HIDDEN, CLASSES)
    logits = conv2d(
        hidden, kernel, classify.bias, padding=classify.dilation, dilation=classify.dilation
    )
    return hidden, logits * inside


def ours(mix, classify, case):
    labels, inside, colours, features = case
    hidden = mix(features, labels, colours.transpose(0, 1).contiguous())
    logits = classify(hidden, SIDE).view(CLASSES, NUM, SIDE, SIDE).transpose(0, 1)
    return hidden.view(NUM, SIDE, SIDE, HIDDEN).permute(0, 3, 1, 2), logits * inside


@pytest.mark.parametrize("dilation", [1, 2])
def test_results_and_gradients_are_those_of_a_convolution(case, dilation):
    mix = SuperpixelConvolution(FEATURES, HIDDEN).double()
    classify = PixelConvolution(HIDDEN, CLASSES, dilation=dilation).double()
    variables = [case[3], *mix.parameters(), *classify.parameters()]
    weights = torch.randn(NUM, CLASSES, SIDE, SIDE, dtype=torch.double)
    results = []
    for function in (ours, expected):
        hidden, logits = function(mix, classify, case)
        gradients = torch.autograd.grad((logits * weights).sum(), variables)
        results.append([hidden, logits, *gradients])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert all(gradient.abs().max() > 0.01 for gradient in results[0][2:])


def test_padding_is_exactly_zero(case):
    mix = SuperpixelConvolution(FEATURES, HIDDEN).double()
    hidden, _ = ours(mix, PixelConvolution(HIDDEN, CLASSES, dilation=2).double(), case)
    outside = (case[1] == 0).expand_as(hidden)
    assert (hidden[outside] == 0).all()
    assert hidden[~outside].max() > 0


def test_the_gradient_of_the_table_is_the_same_on_every_device(case, monkeypatch):
    """A GPU sums otherwise; that way runs on the CPU as well."""
    labels = case[0]
    line = torch.randn(labels.numel() + 2 * (SIDE + 1), HIDDEN, dtype=torch.double)
    wanted = _table_gradient(line, labels, 5 * NUM)

    def anywhere(line, labels, places, table):
        arrays = (torch.from_numpy(array) for array in (line, labels, table))
        line, labels, table = arrays
        _add_rows_anywhere(line, labels, places.tolist(), table)

    monkeypatch.setattr(superpixel_convolution, "_add_rows", anywhere)
    torch.testing.assert_close(_table_gradient(line, labels, 5 * NUM), wanted)
    assert wanted.abs().min() > 0
