"""The U against a drawing of it: what is kept where, and what meets what."""

import torch
from torch import nn

from hemaml.nn.u_shape import Concatenation, UShape, double_convolution


class Note(nn.Module):
    """Adds its value and notes the size of what passes."""

    def __init__(self, value, log):
        super().__init__()
        self.value, self.log = value, log

    def forward(self, x):
        self.log.append((self.value, x.shape[-1]))
        return x[:, :1] + self.value


def test_parts_meet_in_their_order():
    log = []
    network = UShape(
        encoders=[Note(1, log), Note(10, log)],
        downs=[nn.MaxPool2d(2), nn.MaxPool2d(2)],
        bottom=Note(100, log),
        ups=[nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)],
        joins=[Concatenation(), Concatenation()],
        decoders=[Note(1000, log), Note(10_000, log)],
        head=nn.Identity(),
    )
    out = network(torch.zeros(1, 1, 8, 8))
    assert log == [(1, 8), (10, 4), (100, 2), (1000, 4), (10_000, 8)]
    assert (out == 10_001).all()  # what the first encoder kept stands first at the last decoder


def test_what_rises_stands_behind_what_was_kept():
    joined = Concatenation(axis=-1)(torch.zeros(1, 2, 2, 1), torch.ones(1, 2, 2, 3))
    assert joined.shape == (1, 2, 2, 4)
    assert joined.sum() == joined[..., 1:].sum() == 12


def test_double_convolutions_keep_sizes_with_and_without_norm():
    x = torch.randn(2, 3, 7, 5)
    for norm in (True, False):
        block = double_convolution(3, 4, norm=norm)
        assert block(x).shape == (2, 4, 7, 5)
        assert any(isinstance(part, nn.BatchNorm2d) for part in block) is norm
