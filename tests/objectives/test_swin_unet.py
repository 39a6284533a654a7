"""The parts of the Swin-Unet that are ours; the blocks are torchvision's."""

import pytest
import torch
from torchvision.models.swin_transformer import SwinTransformerBlock

from hemaml.objectives.wbc_segmentation.swin_unet import DEPTHS, HEADS, Expansion, Params

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks_of(params):
    with torch.device("meta"):
        network = params.build()
    return [part for part in network.modules() if isinstance(part, SwinTransformerBlock)]


def test_every_second_block_shifts_its_windows():
    blocks = blocks_of(Params())
    assert len(blocks) == 2 * sum(DEPTHS) - DEPTHS[-1]
    assert [block.attn.shift_size for block in blocks] == [[0, 0], [2, 2]] * (len(blocks) // 2)


@pytest.mark.parametrize("width", [1 / 64, 0.3, 1])
def test_all_heads_have_as_many_channels(width):
    found = {
        (block.attn.num_heads, block.norm1.normalized_shape[0] / block.attn.num_heads)
        for block in blocks_of(Params(width=width))
    }
    assert {heads for heads, _ in found} == set(HEADS)
    assert len({channels for _, channels in found}) == 1


def test_the_deepest_block_is_skipped_most_and_the_first_never():
    shares = [block.stochastic_depth.p for block in blocks_of(Params(stochastic_depth=0.3))]
    encoder = shares[: sum(DEPTHS[:3])]
    assert encoder == sorted(encoder) and encoder[0] == 0
    assert max(shares) == pytest.approx(0.3)


def test_an_expansion_puts_each_patch_where_it_came_from():
    expansion = Expansion(4, 3, 2)
    with torch.no_grad():
        x = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
        larger = expansion(x)
        assert larger.shape == (1, 4, 6, 3)
        for row in range(2):
            for column in range(3):
                alone = expansion(x[:, row : row + 1, column : column + 1])
                there = larger[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                torch.testing.assert_close(there, alone)
