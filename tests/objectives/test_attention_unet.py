"""The gates of the Attention U-Net."""

import pytest
import torch

from hemaml.objectives.wbc_segmentation.attention_unet import GatedJoin

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("bias", "share"), [(-1e4, 0), (1e4, 1)])
def test_a_gate_lets_through_nothing_or_all(bias, share):
    join = GatedJoin(4).eval()
    torch.nn.init.constant_(join.gate[0].bias, bias)
    kept, rising = torch.randn(2, 2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(join(kept, rising), torch.cat([share * kept, rising], dim=1))


def test_a_gate_weighs_all_channels_of_a_pixel_alike():
    join = GatedJoin(4).eval()
    kept, rising = torch.randn(2, 2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weights = join(kept, rising)[:, :4] / kept
    torch.testing.assert_close(weights, weights[:, :1].expand_as(weights))
    assert weights.min() > 0 and weights.max() < 1
