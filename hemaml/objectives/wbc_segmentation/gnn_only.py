"""The SMGNN without its CNN: superpixels are classified and their classes painted back.

Training minimises the cross-entropy of the superpixels' classes plus lambda times the metric loss.
What whole superpixels cannot follow is lost: `iou_reconstruction`, beside each score, is the most
that can be reached.

Source: section 4.4, eq. 4.1 and 4.2, and figure 10 of the SMGNN paper (Jiang et al. 2024).
"""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from hemaml.core.objective import Context, Objective, Step
from hemaml.core.task import Fold
from hemaml.nn.parameters import count_unbuilt
from hemaml.nn.superpixel_network import RegionClassifier
from hemaml.objectives.wbc_segmentation._images import NUM_CLASSES
from hemaml.objectives.wbc_segmentation._regions import RegionParams
from hemaml.objectives.wbc_segmentation.smgnn import (
    Batch,
    SmgnnModel,
    metric_loss,
    train,
)
from hemaml.ops.superpixels import Rule
from hemaml.tasks import wbc_segmentation


class Params(RegionParams):
    """What can be fixed or searched."""

    label_rule: Rule = Field(
        default="majority",
        description="A superpixel's class: its most frequent, or the rounded mean as in eq. 4.2.",
    )

    def build(self) -> RegionClassifier:
        """The network with new weights from torch's global generator."""
        return RegionClassifier(num_classes=NUM_CLASSES, **self.embedding)


def size(params: Params) -> int:
    """Parameters of the network, a and b of the metric loss included."""
    return count_unbuilt(params.build)


class GnnOnlyModel(SmgnnModel):
    """A fitted classifier of superpixels."""

    params_class = Params


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold; see the module. Raises as `smgnn.train`."""
    return train(GnnOnlyModel, node_loss, params, fold, context)


def node_loss(
    network: RegionClassifier, batch: Batch, params: Params, generator: torch.Generator
) -> dict[str, Tensor]:
    """The mean cross-entropy of superpixels plus lambda times the metric loss, and the parts.

    Source: eq. 4.1 of the SMGNN paper.
    """
    embeddings = network.embed(batch.regions)
    classes = node_classes(batch, params.label_rule)
    cross = cross_entropy(network.classify(embeddings), classes)
    if params.lambda_ == 0:
        return {"loss": cross, "cross_entropy": cross}
    metric = metric_loss(network, embeddings, batch, params, generator)
    return {"loss": cross + params.lambda_ * metric, "cross_entropy": cross, "metric_loss": metric}


def node_classes(batch: Batch, rule: Rule) -> Tensor:
    """K classes of the superpixels, int64; of equally frequent ones the lowest.

    Source: eq. 4.2 of the SMGNN paper, which calls its rounded mean a majority vote: half
    background and half nucleus make cytoplasm by it.
    """
    if rule == "mean":
        return (batch.targets * (NUM_CLASSES - 1) + 0.5).long()
    num_nodes = len(batch.targets)
    shown = batch.one_hot.permute(0, 2, 3, 1).flatten(0, 2).float()
    votes_KC = shown.new_zeros(num_nodes + 1, NUM_CLASSES)  # the last row is of padding
    votes_KC.index_add_(0, batch.regions.labels.flatten(), shown)
    return votes_KC[:num_nodes].argmax(dim=1)


objective = Objective(
    task=wbc_segmentation.task,
    params=Params,
    model=GnnOnlyModel,
    fit=fit,
    size=size,
    untrained=lambda params, device: GnnOnlyModel(params, params.build().to(device)),
    mutable=frozenset({"lr", "lambda"}),
    figures=("embeddings",),
    examples=(
        {"epochs": 2, "validate_every": 1, "batch_size": 4, "width": 6},
        {"epochs": 1, "lambda": 0, "label_rule": "mean", "augment": False},
    ),
)
