"""Normal distributions of superpixels against torch's, and what they reach on drawn cells."""

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from hemaml.core.cache import Cache
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.objectives.wbc_segmentation.discriminant import Discriminant, Params, fit
from hemaml.objectives.wbc_segmentation.smgnn import batch_of, learnable
from hemaml.ops.superpixels import reconstruction_score, superpixels

pytestmark = pytest.mark.usefixtures("one_thread")


def batch_like(smears):
    items = learnable(smears.subset(range(1)), Params().oversegmentation, Cache.off())
    return batch_of(items, stretch=True, codes=None).regions


def test_the_logits_are_log_densities_plus_the_log_of_the_share(smears):
    drawn = torch.Generator().manual_seed(0)
    features = torch.randn(3000, 5, generator=drawn) @ torch.randn(5, 5, generator=drawn)
    classes = torch.arange(3000) % 4 % 3  # half of them are of class 0
    features += classes[:, None]
    network = Discriminant()
    network.learn(features, classes, 0.0)
    regions = batch_like(smears)
    logits, _ = network(regions)
    found = logits.permute(0, 2, 3, 1)[regions.labels < len(regions.features)]
    expected = []
    for index, share in enumerate((0.5, 0.25, 0.25)):
        own = features[classes == index]
        density = MultivariateNormal(own.mean(dim=0), torch.cov(own.t()))
        expected.append(density.log_prob(regions.features) + np.log(share))
    painted = torch.stack(expected, dim=1)[regions.labels[regions.labels < len(regions.features)]]
    gap = found - painted
    torch.testing.assert_close(gap, gap[:1, :1].expand_as(gap), rtol=0, atol=0.02)


def test_a_class_without_superpixels_does_not_break_it(smears):
    network = Discriminant()
    network.learn(torch.randn(50, 5), torch.zeros(50, dtype=torch.long), 0.1)
    logits, features = network(batch_like(smears))
    assert torch.isfinite(logits).all()
    inside = logits.permute(0, 2, 3, 1)[batch_like(smears).labels < len(features)]
    assert (inside.argmax(dim=1) == 0).all()


def test_it_learns_drawn_cells_and_says_what_superpixels_could_carry(smears):
    fold = Fold(smears.subset(range(6)), smears.subset(range(6, 9)))
    (step,) = fit(Params(scale=25, superpixels="slic", compactness=20), fold, Context())
    assert step.metrics["dice"] > 0.6
    labels = [superpixels(i, scale=25, compactness=20, method="slic") for i in fold.val.images]
    ceilings = [
        reconstruction_score(found, mask, num_classes=3)
        for found, mask in zip(labels, fold.val.masks, strict=True)
    ]
    assert step.metrics["iou_reconstruction"] == pytest.approx(np.mean(ceilings))
    counts = [found.max() + 1 for found in labels]
    assert step.metrics["num_superpixels"] == pytest.approx(np.mean(counts))
    assert step.metrics["iou"] < step.metrics["iou_reconstruction"]
