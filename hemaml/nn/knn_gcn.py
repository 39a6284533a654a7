"""Two graph convolutions over a bank of images, to which a new image attaches without changing it.

The graph is undirected. A new node has an edge to each of its k neighbours, which count it in their
degrees for that moment; what they hand to it is what they had without it. So an answer depends on
the image and the bank alone, not on other queries.

Every convolution but attention is a sum of fixed propagations P_p x W_p. Of the first layer, whose
input never changes, P_p x is computed once; in all other places x W_p is propagated, which has
fewer columns. Both orders are equal.

Shape suffixes: N nodes of the bank, Q queries, k neighbours, F features in, D features out, C
classes, p propagations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from hemaml.nn.dropout import ByteDropout
from hemaml.nn.graph_convolutions import Gat, Graph

Conv = Literal["gcn", "gat", "sage", "cheb"]


@dataclass(frozen=True, slots=True)
class Links:
    """Edges from Q queries into a bank.

    Attributes:
        neighbours: Q x k nodes, int64.
        degrees: Q x k numbers of neighbours of these nodes within the bank, float32.
        strength: Q x k factors, 0 to 1, on what each edge carries; None for 1.
    """

    neighbours: Tensor
    degrees: Tensor
    strength: Tensor | None = None

    def sum(self, relayed_ND: Tensor, weight_Qk: Tensor) -> Tensor:
        """Q x D: what the neighbours hand on, weighted."""
        if self.strength is not None:
            weight_Qk = weight_Qk * self.strength
        return functional.embedding_bag(
            self.neighbours, relayed_ND, mode="sum", per_sample_weights=weight_Qk
        )


class Propagation(Protocol):
    """`num` fixed linear maps P_p between signals on the nodes of a graph.

    `spread` gives P_p x_p for each p; `relay` what nodes hand to a query that attaches; `attach`
    P_p x_p at the queries, from their own signals and the relayed ones.
    """

    num: int

    def spread(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """Num tensors of N x D."""

    def relay(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """Num tensors of N x D."""

    def attach(
        self, own: Sequence[Tensor], relayed: Sequence[Tensor], links: Links
    ) -> list[Tensor]:
        """Num tensors of Q x D."""


class Normalised:
    """Means with weights 1 / sqrt(d_i d_j), where degrees d count the loops that nodes have.

    Source: Kipf and Welling, "Semi-supervised classification with graph convolutional networks",
    ICLR 2017, eq. 2; stage 3 of the paper on leukemia.
    """

    num = 1

    def spread(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        scale_N1 = (graph.degrees + 1).rsqrt()
        scaled = x[0] * scale_N1
        return [(scaled + graph.sum(scaled)) * scale_N1]

    def relay(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        return list(x)

    def attach(
        self, own: Sequence[Tensor], relayed: Sequence[Tensor], links: Links
    ) -> list[Tensor]:
        """See `Propagation`."""
        k = links.neighbours.shape[1]
        # A neighbour's degree: its own edges, its loop, and the edge to the query.
        weight_Qk = ((k + 1) * (links.degrees + 2)).rsqrt()
        return [links.sum(relayed[0], weight_Qk) + own[0] / (k + 1)]


class OwnAndMean:
    """The node itself, and the mean of its neighbours.

    Source: Hamilton et al., "Inductive representation learning on large graphs", NeurIPS 2017.
    """

    num = 2

    def spread(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        return [x[0], graph.sum(x[1]) / graph.degrees]

    def relay(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        return list(x)

    def attach(
        self, own: Sequence[Tensor], relayed: Sequence[Tensor], links: Links
    ) -> list[Tensor]:
        """See `Propagation`."""
        k = links.neighbours.shape[1]
        return [own[0], links.sum(relayed[1], torch.full_like(links.degrees, 1 / k))]


class Chebyshev:
    """Chebyshev polynomials 0 to 2 of L = -D^-1/2 A D^-1/2, the Laplacian shifted into -1..1.

    A query hears of the neighbours of its neighbours, too, as they are within the bank.

    Source: Defferrard et al., "Convolutional neural networks on graphs with fast localized spectral
    filtering", NeurIPS 2016, with the largest eigenvalue taken as 2.
    """

    num = 3

    def spread(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        _, once, twice = self.relay(x, graph)
        return [x[0], _laplace(once, graph), 2 * _laplace(twice, graph) - x[2]]

    def relay(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        return [x[0], x[1], _laplace(x[2], graph)]

    def attach(
        self, own: Sequence[Tensor], relayed: Sequence[Tensor], links: Links
    ) -> list[Tensor]:
        """See `Propagation`."""
        weight_Qk = -(links.neighbours.shape[1] * (links.degrees + 1)).rsqrt()
        once, twice = (links.sum(values, weight_Qk) for values in relayed[1:])
        return [own[0], once, 2 * twice - own[2]]


class Nothing:
    """The node itself: the network is then a multilayer perceptron."""

    num = 1

    def spread(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        return list(x)

    def relay(self, x: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """See `Propagation`."""
        return list(x)

    def attach(
        self, own: Sequence[Tensor], relayed: Sequence[Tensor], links: Links
    ) -> list[Tensor]:
        """See `Propagation`."""
        return list(own)


def _laplace(x_ND: Tensor, graph: Graph) -> Tensor:
    scale_N1 = graph.degrees.rsqrt()
    return -graph.sum(x_ND * scale_N1) * scale_N1


class Propagated(nn.Module):
    """The sum over p of P_p x W_p, plus a bias.

    Args:
        num_in: F.
        num_out: D.
        propagation: The maps P_p.
    """

    def __init__(self, num_in: int, num_out: int, propagation: Propagation) -> None:
        super().__init__()
        self.propagation = propagation
        self.weight = nn.Parameter(torch.empty(propagation.num, num_in, num_out))
        self.bias = nn.Parameter(torch.zeros(num_out))
        for weight_FD in self.weight:
            nn.init.xavier_uniform_(weight_FD)

    def constant(self, x_NF: Tensor, graph: Graph) -> Tensor:
        """P_p x side by side: what `finish` needs besides the weights."""
        copies = [x_NF] * self.propagation.num
        return torch.cat(self.propagation.spread(copies, graph), dim=1)

    def finish(self, constant: Tensor, graph: Graph) -> Tensor:
        """N x D of what `constant` gave."""
        return torch.addmm(self.bias, constant, self.weight.flatten(0, 1))

    def forward(self, x_NF: Tensor, graph: Graph) -> Tensor:
        """N x D."""
        out: Tensor = sum(self.propagation.spread(self._mapped(x_NF), graph), self.bias)
        return out

    def relay(self, x_NF: Tensor, graph: Graph) -> Tensor:
        """What the nodes hand to a query, N x pD."""
        return torch.cat(self.propagation.relay(self._mapped(x_NF), graph), dim=1)

    def attach(self, own_QF: Tensor, relayed: Tensor, links: Links) -> Tensor:
        """Q x D of queries in the place of nodes."""
        parts = relayed.chunk(self.propagation.num, dim=1)
        out: Tensor = sum(self.propagation.attach(self._mapped(own_QF), parts, links), self.bias)
        return out

    def _mapped(self, x: Tensor) -> list[Tensor]:
        return [x @ weight_FD for weight_FD in self.weight]


class Attention(nn.Module):
    """`Gat`, with queries; nothing of it is constant but its input."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.gat = Gat(num_in, num_out)
        nn.init.xavier_uniform_(self.gat.linear.weight)
        nn.init.xavier_uniform_(self.gat.scores.weight)

    def constant(self, x_NF: Tensor, graph: Graph) -> Tensor:
        """The input."""
        return x_NF

    def finish(self, constant: Tensor, graph: Graph) -> Tensor:
        """N x D."""
        return self.forward(constant, graph)

    def forward(self, x_NF: Tensor, graph: Graph) -> Tensor:
        """N x D."""
        out: Tensor = self.gat(x_NF, graph)
        return out

    def relay(self, x_NF: Tensor, graph: Graph) -> Tensor:
        """N x D."""
        mapped: Tensor = self.gat.linear(x_NF)
        return mapped

    def attach(self, own_QF: Tensor, relayed: Tensor, links: Links) -> Tensor:
        """Q x D: a mean over the neighbours and the query itself."""
        own_QD = self.gat.linear(own_QF)
        to_Q1, of_Q1 = self.gat.scores(own_QD).split(1, dim=1)
        of_Qk = (relayed @ self.gat.scores.weight[1])[links.neighbours]
        scores = functional.leaky_relu(to_Q1 + torch.cat([of_Qk, of_Q1], dim=1), 0.2)
        weights = scores.softmax(dim=1)
        heard: Tensor = links.sum(relayed, weights[:, :-1].contiguous())
        out: Tensor = heard + weights[:, -1:] * own_QD + self.gat.bias
        return out


PROPAGATIONS: dict[str, Propagation] = {
    "gcn": Normalised(),
    "sage": OwnAndMean(),
    "cheb": Chebyshev(),
    "none": Nothing(),
}


def _layer(kind: Conv | Literal["none"], num_in: int, num_out: int) -> Propagated | Attention:
    if kind == "gat":
        return Attention(num_in, num_out)
    return Propagated(num_in, num_out, PROPAGATIONS[kind])


@dataclass(frozen=True, slots=True)
class Relayed:
    """What a bank hands to queries: of each layer N rows."""

    first: Tensor
    second: Tensor


class KnnGcn(nn.Module):
    """Convolution, ReLU, dropout, convolution: N x F features of nodes to N x C logits.

    Args:
        num_in: F.
        hidden: Width between the layers.
        num_classes: C.
        conv: Kind of both convolutions; `none` for a multilayer perceptron of the same widths.
        skip: Adds a linear map of the features to the logits.
        dropout: Share of hidden values dropped in training.

    Source: stage 3 of Kapadia and Swarnalatha (`conv="gcn"`, 512-128-2, dropout 0.5, no skip).
    """

    def __init__(
        self,
        num_in: int,
        hidden: int,
        num_classes: int,
        *,
        conv: Conv | Literal["none"],
        skip: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.first = _layer(conv, num_in, hidden)
        self.second = _layer(conv, hidden, num_classes)
        self.skip = nn.Linear(num_in, num_classes, bias=False) if skip else None
        self.dropout = ByteDropout(dropout)

    def constant(self, x_NF: Tensor, graph: Graph) -> Tensor:
        """What of the first layer does not depend on the weights, for `forward`."""
        return self.first.constant(x_NF, graph)

    def forward(self, constant: Tensor, x_NF: Tensor, graph: Graph) -> Tensor:
        """Logits of all nodes, N x C."""
        hidden = self.dropout(functional.relu(self.first.finish(constant, graph)))
        return self._skipped(x_NF, self.second(hidden, graph))

    def relay(self, x_NF: Tensor, graph: Graph, constant: Tensor) -> Relayed:
        """What the bank hands to queries with the weights as they are; in evaluation mode."""
        assert not self.training
        hidden = functional.relu(self.first.finish(constant, graph))
        return Relayed(self.first.relay(x_NF, graph), self.second.relay(hidden, graph))

    def attach(self, x_QF: Tensor, relayed: Relayed, links: Links) -> tuple[Tensor, Tensor]:
        """Hidden values, Q x hidden, and logits, Q x C, of queries; in evaluation mode."""
        assert not self.training
        hidden = functional.relu(self.first.attach(x_QF, relayed.first, links))
        return hidden, self._skipped(x_QF, self.second.attach(hidden, relayed.second, links))

    def _skipped(self, x: Tensor, logits: Tensor) -> Tensor:
        if self.skip is None:
            return logits
        skipped: Tensor = self.skip(x)
        return logits + skipped


def edgeless(num: int) -> Graph:
    """Nodes without edges, for `conv="none"`."""
    return Graph(torch.zeros(num + 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32))


def explain_edges(
    network: KnnGcn,
    x_1F: Tensor,
    relayed: Relayed,
    links: Links,
    *,
    steps: int = 200,
    lr: float = 0.05,
    size_cost: float = 0.05,
) -> Tensor:
    """How much each edge of a query matters to the class it is given, k weights in 0..1.

    A mask on the edges is optimised so that the predicted class stays probable while few edges
    carry much. It starts at one half everywhere, so the answer is the same each time. The entropy
    term of the paper is left out: with few edges it drives all weights to 0 or 1 at the first sign
    of a gradient, so that their order has nothing to do with what an edge changes.

    Args:
        network: In evaluation mode; its parameters do not change.
        x_1F: The query.
        relayed: What the bank hands to it.
        links: Its edges.
        steps: Updates of the mask.
        lr: Adam's learning rate.
        size_cost: Weight of the sum of the mask.

    Source: Ying et al., "GNNExplainer: generating explanations for graph neural networks", NeurIPS
    2019, eq. 4 to 6, without the entropy of the mask.
    """
    with torch.no_grad():
        chosen = network.attach(x_1F, relayed, links)[1].argmax(dim=1)
    logit = torch.zeros_like(links.degrees, requires_grad=True)
    optimiser = torch.optim.Adam([logit], lr=lr)
    for _ in range(steps):
        mask = logit.sigmoid()
        masked = Links(links.neighbours, links.degrees, mask)
        loss = functional.cross_entropy(network.attach(x_1F, relayed, masked)[1], chosen)
        (gradient,) = torch.autograd.grad(loss + size_cost * mask.sum(), [logit])
        logit.grad = gradient
        optimiser.step()
    return logit.detach().sigmoid()[0]
