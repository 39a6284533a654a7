"""The three ways in which a fit uses one set of embeddings: each a network trained on its graph.

`inductive` knows the training images alone and attaches a new image to them; `transductive` has the
images that it will be asked for in its graph, without their labels, as the paper does; `mlp` has no
graph at all. They share widths, rates and labels, so that the graph is the only difference.

Shape suffixes: N nodes; F features; C classes; M images that are asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hemaml.core.cache import Cache, array_digest
from hemaml.core.objective import Context, Model, Step
from hemaml.core.types import Arrays, Float32Array, Int64Array
from hemaml.data.class_weights import class_weights
from hemaml.nn.graph_convolutions import Graph
from hemaml.nn.knn_gcn import KnnGcn, edgeless
from hemaml.nn.training import Patience, fit_network
from hemaml.ops.knn_graph import Neighbours, knn_graph, undirected, unit_rows

ArmName = Literal["inductive", "transductive", "mlp"]
LARGEST_K = 64
"""Neighbours are searched once for so many, and every smaller k takes the first of these."""
VERSION = 1
"""To be raised when neighbours change, so that cached ones are not used any more."""


def neighbours_of(features_NF: Float32Array, k: int, cache: Cache) -> Neighbours:
    """The k nearest other rows of each, from the cache where a search for any k left them.

    Raises:
        ConfigError: k is N or more.
    """
    unit_NF = unit_rows(features_NF)
    most = min(max(k, LARGEST_K), max(k, len(unit_NF) - 1))

    def search() -> Arrays:
        found = knn_graph(unit_NF, most)
        return {"indices": found.indices, "similarities": found.similarities}

    key: dict[str, object] = {
        "rows": array_digest(np.ascontiguousarray(unit_NF).view(np.uint8)),
        "k": most,
        "version": VERSION,
    }
    found = cache.arrays("neighbours", key, search)
    return Neighbours(found["indices"], found["similarities"]).first(k)


def graph_of(found: Neighbours) -> Graph:
    """The undirected graph of lists of neighbours."""
    starts, neighbours = undirected(found.indices)
    return Graph(torch.from_numpy(starts), torch.from_numpy(neighbours))


@dataclass(frozen=True, slots=True)
class Arm:
    """One network on its nodes.

    Attributes:
        network: On the device.
        x: N x F features of the nodes.
        graph: Of the nodes.
        labelled: Nodes whose labels are learned.
        labels: Their classes.
    """

    network: KnnGcn
    x: Tensor
    graph: Graph
    labelled: Tensor
    labels: Tensor

    def loss(self, num_classes: int) -> Callable[[Tensor], Tensor]:
        """Cross-entropy of the labelled nodes, classes weighted inversely to their frequency."""
        counts = class_weights(self.labels.tolist(), num_classes)
        weights = torch.from_numpy(counts).to(self.x.device)

        def loss(constant: Tensor) -> Tensor:
            logits = self.network(constant, self.x, self.graph)[self.labelled]
            return functional.cross_entropy(logits, self.labels, weights)

        return loss

    @torch.no_grad()
    def logits(self) -> Tensor:
        """N x C in evaluation mode."""
        self.network.eval()
        found: Tensor = self.network(self.network.constant(self.x, self.graph), self.x, self.graph)
        return found


def arm(
    name: ArmName,
    network: KnnGcn,
    features_NF: Float32Array,
    labelled: Int64Array,
    labels: Sequence[int],
    *,
    k: int,
    context: Context,
) -> Arm:
    """A network on nodes with these features; the first ones are the training images.

    Args:
        name: `mlp` has a graph without edges.
        network: Not yet on the device.
        features_NF: N x F.
        labelled: Nodes whose labels are learned.
        labels: Their classes.
        k: Neighbours.
        context: Device and cache.
    """
    if name == "mlp":
        graph = edgeless(len(features_NF))
    else:
        graph = graph_of(neighbours_of(features_NF, k, context.cache))
    device = context.device
    return Arm(
        network.to(device),
        torch.from_numpy(features_NF).to(device),
        graph.to(device),
        torch.from_numpy(labelled).to(device),
        torch.tensor(labels, device=device),
    )


@dataclass(frozen=True, slots=True)
class How:
    """How every arm is trained."""

    lr: float
    weight_decay: float
    epochs: int
    validate_every: int
    patience: Patience


def train(
    arm: Arm,
    how: How,
    *,
    num_classes: int,
    validate: Callable[[], Mapping[str, float]],
    model: Model,
    context: Context,
) -> Iterator[Step]:
    """Full-batch training of one arm; see `fit_network`.

    The first propagation of the features does not depend on the weights and is done once.
    """
    constant = arm.network.constant(arm.x, arm.graph)
    yield from fit_network(
        arm.network,
        torch.optim.Adam(
            arm.network.parameters(), lr=how.lr, weight_decay=how.weight_decay, fused=True
        ),
        batches=lambda epoch: [constant],
        loss=arm.loss(num_classes),
        validate=validate,
        model=model,
        epochs=how.epochs,
        validate_every=how.validate_every,
        patience=how.patience,
        context=context,
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """What is kept of an arm that was trained to its end: that of its best validation.

    Attributes:
        metrics: Scores of that validation.
        weights: Of the network there.
    """

    metrics: dict[str, float]
    weights: dict[str, Tensor]


def train_to_the_end(
    arm: Arm,
    how: How,
    *,
    num_classes: int,
    validate: Callable[[], Mapping[str, float]],
    context: Context,
) -> Trained:
    """Trains an arm, keeps its best validation by the metric of its patience, and goes back there.

    Raises:
        Diverged: The loss is not finite.
    """
    sign = 1 if how.patience.direction == "maximize" else -1
    best: Trained | None = None
    scores: dict[str, float] = {}

    def validated() -> Mapping[str, float]:
        scores.clear()
        scores.update(validate())
        return scores

    steps = train(
        arm,
        how,
        num_classes=num_classes,
        validate=validated,
        model=cast(Model, None),  # of steps that nobody keeps
        context=context,
    )
    for _ in steps:
        value = sign * scores[how.patience.metric]
        if best is None or value > sign * best.metrics[how.patience.metric]:
            weights = {k: v.detach().clone() for k, v in arm.network.state_dict().items()}
            best = Trained(dict(scores), weights)
    assert best is not None
    arm.network.load_state_dict(best.weights)
    return best


def labelled_nodes(labels: Sequence[int], share: float, seed: int) -> Int64Array:
    """Nodes that keep their label, ascending: the same share of each class, one at least."""
    values = np.asarray(labels)
    draw = np.random.default_rng(seed)
    kept = []
    for label in np.unique(values):
        nodes = np.flatnonzero(values == label)
        kept.append(draw.permutation(nodes)[: max(1, round(share * len(nodes)))])
    return np.sort(np.concatenate(kept))
