"""The regularised softmax against the problem it solves."""

import pytest
import torch

from hemaml.objectives.wbc_segmentation.r_unet import TotalVariation, divergence, gradient

pytestmark = pytest.mark.usefixtures("one_thread")


def logits_of(seed=0, shape=(2, 3, 9, 7)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def variation(a):
    return torch.linalg.vector_norm(gradient(a), dim=0).sum()


def energy(a, o, weight):
    return -(a * o).sum() + (a * a.log()).sum() + weight * variation(a)


def solved(o, weight, steps):
    return TotalVariation(weight, steps)(o).softmax(dim=1)


def test_divergence_is_the_negative_adjoint_of_the_gradient():
    field, eta = logits_of(0), torch.stack([logits_of(1), logits_of(2)])
    torch.testing.assert_close((gradient(field) * eta).sum(), -(field * divergence(eta)).sum())


@pytest.mark.parametrize(("weight", "steps"), [(0, 10), (0.5, 0)])
def test_without_weight_or_steps_it_is_the_softmax(weight, steps):
    o = logits_of().float()
    assert torch.equal(TotalVariation(weight, steps)(o), o)


@pytest.mark.parametrize("weight", [0.1, 0.5, 2])
def test_it_minimises_the_energy(weight):
    """The dual value is a lower bound; where the two meet, both are the minimum."""
    o = logits_of().float()
    a = solved(o, weight, 2000)
    # At its minimum over A, -<A, o - div eta> + <A, log A> is minus the sum of log-sum-exp.
    dual = -torch.logsumexp(TotalVariation(weight, 2000)(o), dim=1).sum()
    assert energy(a, o, weight) == pytest.approx(float(dual), abs=0.02)
    for step in range(4):
        other = (a.log() + 0.05 * logits_of(step + 5).float()).softmax(dim=1)
        assert energy(other, o, weight) > energy(a, o, weight)


def test_each_step_comes_nearer():
    """Every eta bounds the energy from below, and ascent by a safe step raises the bound."""
    o = logits_of().float()
    bounds = [
        -torch.logsumexp(TotalVariation(0.5, steps)(o), dim=1).sum()
        for steps in (0, 1, 2, 5, 10, 50)
    ]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[1] < bounds[-1]


def test_a_larger_weight_gives_shorter_boundaries():
    o = logits_of().float()
    lengths = [float(variation(solved(o, weight, 500))) for weight in (0, 0.1, 0.5, 2, 10)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 1e-2 * lengths[0]  # all of an image is one region
    torch.testing.assert_close(
        solved(o, 10, 2000)[0, :, 4, 4], o[0].mean(dim=(1, 2)).softmax(0), atol=1e-2, rtol=0
    )


def test_a_stray_pixel_joins_the_region_around_it():
    o = torch.zeros(1, 3, 9, 9)
    o[:, 1] = 2
    o[0, :, 4, 4] = torch.tensor([0.0, 0, 3])
    assert o.argmax(dim=1)[0, 4, 4] == 2
    assert (solved(o, 0.5, 100).argmax(dim=1) == 1).all()


def test_gradients_reach_the_logits():
    o = logits_of().float().requires_grad_()
    TotalVariation(0.5, 10)(o).softmax(dim=1)[:, 0].sum().backward()
    assert torch.isfinite(o.grad).all()
    assert o.grad.abs().max() > 0
