"""Graph convolutions on a batch of graphs, held as one sparse symmetric adjacency matrix.

Shape suffixes: N graphs, n nodes of all of them, D channels.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["gin", "gcn", "gat", "sage"]


class GraphConvolution(nn.Module):
    """One layer of message passing with normalisation: n x D_in to n x D_out.

    `gin` is eq. 2.4 of the SMGNN paper: an MLP of (1 + w) times the node plus the sum of its
    neighbours. The others are PyG's `GCNConv`, `GATConv` (4 heads, averaged) and `SAGEConv`
    (mean), each followed by the same normalisation and ReLU.
    """

    def __init__(self, kind: Kind, num_in: int, num_out: int) -> None:
        super().__init__()
        from torch_geometric import nn as pyg

        self.kind = kind
        if kind == "gin":
            mlp = nn.Sequential(
                nn.Linear(num_in, num_out),
                nn.BatchNorm1d(num_out),
                nn.ReLU(),
                nn.Linear(num_out, num_out),
            )
            self.convolution: Any = _symmetric_gin()(mlp, train_eps=True)
            self.after: nn.Module = nn.Identity()
            return
        if kind == "gcn":
            self.convolution = pyg.GCNConv(num_in, num_out)
        elif kind == "gat":
            self.convolution = pyg.GATConv(num_in, num_out, heads=4, concat=False)
        else:
            self.convolution = pyg.SAGEConv(num_in, num_out)
        self.after = nn.Sequential(nn.BatchNorm1d(num_out), nn.ReLU())

    def forward(self, x_nD: Tensor, adjacency_nn: Tensor) -> Tensor:
        """One round of messages."""
        if self.kind == "gat":  # attention needs the edges themselves
            indices = adjacency_nn.to_sparse_coo().indices()
            out: Tensor = self.convolution(x_nD, indices)
        else:
            out = self.convolution(x_nD, adjacency_nn)
        result: Tensor = self.after(out)
        return result


class _SymmetricProduct(torch.autograd.Function):
    """A x for a sparse symmetric matrix A of constants.

    Torch's own product transposes A in the backward pass, by a sort that costs more than all else
    in the layer; a symmetric matrix is its own transpose.
    """

    @staticmethod
    def forward(context: Any, matrix_nn: Tensor, x_nD: Tensor) -> Tensor:
        context.matrix_nn = matrix_nn
        return matrix_nn @ x_nD

    @staticmethod
    def backward(context: Any, gradient_nD: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, context.matrix_nn @ gradient_nD.contiguous()


@cache
def _symmetric_gin() -> type[nn.Module]:
    """PyG's `GINConv` with the product above; made on first use, since PyG imports slowly."""
    from torch_geometric.nn import GINConv

    class SymmetricGIN(GINConv):
        def message_and_aggregate(self, adj_t: Tensor, x: tuple[Tensor, Tensor]) -> Tensor:
            product: Tensor = _SymmetricProduct.apply(adj_t, x[0])
            return product

    return SymmetricGIN


def adjacency(graphs: Sequence[dict[str, Tensor]], starts_N: Tensor) -> Tensor:
    """Graphs side by side as one n x n sparse CSR matrix of ones.

    Args:
        graphs: Each with `crow` (K + 1) and `col` (E), the neighbours of node k being
            `col[crow[k]:crow[k + 1]]`.
        starts_N: First row of each graph.
    """
    offsets = torch.cumsum(torch.tensor([0] + [len(g["col"]) for g in graphs]), 0)
    crows = [g["crow"][:-1] + offset for g, offset in zip(graphs, offsets, strict=False)]
    cols = [g["col"] + start for g, start in zip(graphs, starts_N, strict=True)]
    crow, col = torch.cat([*crows, offsets[-1:]]), torch.cat(cols)
    num = len(crow) - 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # CSR is marked beta, checks cost time
        return torch.sparse_csr_tensor(
            crow, col, torch.ones(len(col)), (num, num), check_invariants=False
        )


def graph_mean(x_nD: Tensor, sizes_N: Tensor) -> Tensor:
    """For each node, the mean over the nodes of its graph, n x D."""
    graph_n = torch.repeat_interleave(torch.arange(len(sizes_N), device=x_nD.device), sizes_N)
    sums_ND = x_nD.new_zeros(len(sizes_N), x_nD.shape[1]).index_add(0, graph_n, x_nD)
    return (sums_ND / sizes_N[:, None])[graph_n]
