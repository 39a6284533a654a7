"""Training images as nodes of a graph, to which new images attach without changing it.

Shape suffixes: N nodes; Q new images; F features; k neighbours; C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hemaml.core.types import Float32Array, UInt8Array
from hemaml.nn.graph_convolutions import Graph
from hemaml.nn.knn_gcn import KnnGcn, Links, Relayed, explain_edges
from hemaml.ops.knn_graph import nearest, unit_rows
from hemaml.tasks.leukemia import Neighbourhood


@dataclass(frozen=True, slots=True)
class Bank:
    """The nodes and their graph; nothing here changes when a new image is classified.

    Attributes:
        features: N x F, on the device.
        graph: Of the nodes, on the device.
        labels: N classes.
        ids: N names.
        thumbnails: N x s x s x 3, or none.
        unit: N x F of length 1, for the search.
    """

    features: Tensor
    graph: Graph
    labels: Sequence[int]
    ids: Sequence[str]
    thumbnails: UInt8Array
    unit: Float32Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", unit_rows(self.features.cpu().numpy()))

    @property
    def device(self) -> torch.device:
        """Where the nodes are."""
        return self.features.device

    @torch.no_grad()
    def relayed(self, network: KnnGcn) -> Relayed:
        """What the nodes hand to new images with the weights as they are."""
        network.eval()
        constant = network.constant(self.features, self.graph)
        return network.relay(self.features, self.graph, constant)

    @torch.no_grad()
    def attached(
        self, network: KnnGcn, relayed: Relayed, features_QF: Float32Array, links: Links
    ) -> tuple[Float32Array, Float32Array]:
        """Hidden values, Q x hidden, and probabilities, Q x C, of new images by their `links`."""
        network.eval()
        x = torch.from_numpy(features_QF).to(self.device)
        hidden, logits = network.attach(x, relayed, links)
        return hidden.float().cpu().numpy(), logits.float().softmax(dim=1).cpu().numpy()

    def neighbourhood(
        self, network: KnnGcn, relayed: Relayed, features_1F: Float32Array, k: int
    ) -> Neighbourhood:
        """The neighbours of one new image, and what the edge to each matters to its class."""
        network.eval()
        links, similarities = self.links(features_1F, k)
        x = torch.from_numpy(features_1F).to(self.device)
        weights = explain_edges(network, x, relayed, links)
        nodes = links.neighbours[0].tolist()
        return Neighbourhood(
            ids=[self.ids[node] for node in nodes],
            labels=[self.labels[node] for node in nodes],
            similarities=similarities[0].tolist(),
            weights=weights.tolist(),
            thumbnails=[self.thumbnails[node] for node in nodes] if len(self.thumbnails) else (),
        )

    def links(self, features_QF: Float32Array, k: int) -> tuple[Links, Float32Array]:
        """The k nearest nodes of new images, whatever the weights, and Q x k similarities."""
        found = nearest(unit_rows(features_QF), self.unit, k)
        neighbours = torch.from_numpy(np.ascontiguousarray(found.indices)).to(self.device)
        degrees = self.graph.degrees[:, 0].float()[neighbours]
        return Links(neighbours, degrees), found.similarities


def bank_tensors(bank: Bank) -> dict[str, Tensor]:
    """All of a bank but the names of its nodes, to be stored."""
    return {
        "features": bank.features,
        "starts": bank.graph.starts,
        "neighbours": bank.graph.neighbours,
        "labels": torch.tensor(bank.labels),
        "thumbnails": torch.from_numpy(bank.thumbnails),
    }


def bank_from(tensors: Mapping[str, Tensor], ids: Sequence[str]) -> Bank:
    """The bank that `bank_tensors` took apart."""
    return Bank(
        features=tensors["features"],
        graph=Graph(tensors["starts"], tensors["neighbours"]),
        labels=tensors["labels"].tolist(),
        ids=ids,
        thumbnails=tensors["thumbnails"].numpy(),
    )
