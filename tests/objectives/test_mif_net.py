"""The parts of the MIF-Net."""

import pytest
import torch

from hemaml.objectives.wbc_segmentation.mif_net import BoundarySplitter, ScaleFusion

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_flat_map_has_no_boundary():
    splitter = BoundarySplitter(3).eval()
    seen = []
    splitter.of_boundary.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    splitter.of_interior.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    flat = torch.full((1, 3, 6, 6), 2.0)
    splitter(flat)
    interior, boundary = seen
    torch.testing.assert_close(interior, flat)
    assert boundary.abs().max() < 1e-6


def test_interior_and_boundary_are_the_whole():
    splitter = BoundarySplitter(3).eval()
    seen = []
    for part in (splitter.of_interior, splitter.of_boundary):
        part.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    splitter(x)
    torch.testing.assert_close(sum(seen), x)


def test_all_scales_reach_the_bottom():
    fusion = ScaleFusion([2, 4], 8).eval()
    generator = torch.Generator().manual_seed(0)
    scales = [torch.randn(1, width, side, side, generator=generator, requires_grad=True)
              for width, side in ((2, 16), (4, 8), (8, 4))]  # fmt: skip
    fused = fusion(scales)
    assert fused.shape == (1, 8, 4, 4)
    fused.sum().backward()
    assert all(scale.grad.abs().max() > 0 for scale in scales)
