"""Dropout by bytes against the definition of dropout."""

import pytest
import torch

from hemaml.nn.dropout import ByteDropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    found = ByteDropout(p)(torch.ones(500, 400))
    share = round(256 * p) / 256
    assert set(found.unique().tolist()) == {0, torch.tensor(1 / (1 - share)).item()}
    spread = (share * (1 - share) / found.numel()) ** 0.5
    assert abs((found == 0).float().mean().item() - share) < 4 * spread
    for axis in (0, 1):  # no row and no column is treated otherwise
        means = (found == 0).float().mean(dim=axis)
        expected = (share * (1 - share) / found.shape[axis]) ** 0.5
        assert means.std().item() == pytest.approx(expected, rel=0.2)


def test_neighbours_are_dropped_independently_of_each_other():
    torch.manual_seed(1)
    dropped = (ByteDropout(0.5)(torch.ones(400_000)) == 0).float() - 0.5
    for lag in range(1, 17):
        together = (dropped[:-lag] * dropped[lag:]).mean().item() / 0.25
        assert abs(together) < 4 / len(dropped) ** 0.5


def test_gradients_pass_where_values_do():
    torch.manual_seed(2)
    x = torch.randn(7, 13, requires_grad=True)
    found = ByteDropout(0.5)(x)
    found.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(found == 0, 0.0, 2.0))


def test_a_seed_repeats_it_and_evaluation_changes_nothing():
    x, layer = torch.randn(9, 5), ByteDropout(0.3)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(layer(x))
    assert torch.equal(*drawn)
    assert layer.eval()(x) is x or torch.equal(layer(x), x)
    for p in (0.0, 0.001):
        assert torch.equal(ByteDropout(p)(x), x) or p
