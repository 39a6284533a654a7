"""The classifier of superpixels against eq. 4.1 and 4.2."""

import numpy as np
import pytest
import torch

from hemaml.core.cache import Cache
from hemaml.core.objective import Context
from hemaml.core.task import Fold
from hemaml.objectives.wbc_segmentation import smgnn
from hemaml.objectives.wbc_segmentation.gnn_only import (
    GnnOnlyModel,
    Params,
    fit,
    node_classes,
    node_loss,
    size,
)
from hemaml.ops.superpixels import reconstruction_score

pytestmark = pytest.mark.usefixtures("one_thread")


def batch_of(data, params):
    items = smgnn.learnable(data, params.oversegmentation, Cache.off())
    return items, smgnn.batch_of(items, stretch=True, codes=None)


def network_of(params):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return params.build().eval()


@pytest.mark.parametrize("rule", ["majority", "mean"])
def test_classes_painted_back_are_the_reconstruction(smears, rule):
    """The rule of the labels is that of the ceiling, found another way."""
    params = Params(scale=25)
    items, batch = batch_of(smears.subset(range(4)), params)
    painted = torch.cat([node_classes(batch, rule), torch.zeros(1)])[batch.regions.labels].numpy()
    for item, copy in zip(items, painted, strict=True):
        rows, columns = item.mask.shape
        copy = copy[:rows, :columns]
        found = [
            ((copy == c) & (item.mask == c)).sum() / ((copy == c) | (item.mask == c)).sum()
            for c in range(3)
        ]
        expected = reconstruction_score(item.regions.labels, item.mask, num_classes=3, rule=rule)
        assert np.mean(found) == pytest.approx(expected)


@pytest.mark.parametrize("weight", [0, 0.3])
def test_the_loss_is_the_cross_entropy_plus_lambda_times_metric(smears, weight):
    params = Params.model_validate({"lambda": weight})
    _, batch = batch_of(smears.subset(range(3)), params)
    network = network_of(params)
    parts = node_loss(network, batch, params, torch.Generator().manual_seed(0))
    probabilities = network.classify(network.embed(batch.regions)).softmax(dim=1)
    chosen = probabilities[torch.arange(len(probabilities)), node_classes(batch, "majority")]
    torch.testing.assert_close(parts["cross_entropy"], -chosen.log().mean())
    assert ("metric_loss" in parts) == (weight > 0)
    torch.testing.assert_close(
        parts["loss"], parts["cross_entropy"] + weight * parts.get("metric_loss", 0)
    )


def test_a_superpixel_has_one_class(smears):
    params = Params(clean_up=False)
    model = GnnOnlyModel(params, network_of(params))
    items, _ = batch_of(smears.subset(range(2)), params)
    for item, values in zip(items, model.predict(smears.images[:2]), strict=True):
        for node in range(int(item.regions.labels.max()) + 1):
            of_node = values[item.regions.labels == node]
            np.testing.assert_array_equal(of_node, np.broadcast_to(of_node[0], of_node.shape))


def test_it_is_the_graph_network_of_the_smgnn_and_a_linear_layer():
    width = 22
    cnn = sum(
        p.numel()
        for part in ("mix", "classify")
        for p in getattr(smgnn.Params(width=width).build(), part).parameters()
    )
    assert size(Params(width=width)) == smgnn.size(smgnn.Params(width=width)) - cnn + 3 * width + 3


def test_it_learns_drawn_cells(smears):
    params = Params(epochs=20, validate_every=20, batch_size=2)
    (step,) = fit(params, Fold(smears.subset(range(6)), smears.subset(range(6, 9))), Context())
    assert step.metrics["dice"] > 0.7
