"""Each layer against its formula on dense matrices, in double precision."""

import pytest
import torch
from torch.autograd import gradcheck

from hemaml.nn.graph_convolutions import Graph, graph_convolution

KINDS = ("gin", "gcn", "gat", "sage")


def adjacency(count=7, seed=0):
    """A random symmetric matrix of zeros and ones; node 2 has no neighbours."""
    ones = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)) < 0.4
    dense = torch.triu(ones, 1)
    dense = (dense | dense.t()).double()
    dense[2] = dense[:, 2] = 0
    return dense


def graph_of(dense):
    starts = torch.cat([torch.zeros(1), dense.sum(1).cumsum(0)]).to(torch.int32)
    return Graph(starts, dense.nonzero()[:, 1].to(torch.int32))


def layer_of(kind):
    """A layer with normalisation that is not the identity, in prediction mode."""
    layer = graph_convolution(kind, 5, 4, neighbours=3).double()
    layer(torch.randn(7, 5, dtype=torch.double), graph_of(adjacency()))
    return layer.eval()


def expected(layer, kind, x, dense):
    if kind == "gin":
        return layer.mlp((1 + layer.w) * x + dense @ x / 3)
    with_loops = dense + torch.eye(len(dense))
    if kind == "gcn":
        scale = with_loops.sum(1).rsqrt()
        return layer.linear(scale[:, None] * with_loops * scale @ x)
    if kind == "sage":
        mean = dense @ x / dense.sum(1, keepdim=True).clamp(min=1)
        return layer.own(x) + layer.mean(mean)
    h = layer.linear(x)
    to, of = layer.scores(h).unbind(1)
    scores = torch.nn.functional.leaky_relu(to[:, None] + of[None], 0.2)
    scores = scores.masked_fill(with_loops == 0, -torch.inf)
    return scores.softmax(dim=1) @ h + layer.bias


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_its_formula(kind):
    torch.manual_seed(0)
    dense = adjacency()
    layer = layer_of(kind)
    if kind == "gin":
        torch.nn.init.constant_(layer.w, 0.3)
    x = torch.randn(7, 5, dtype=torch.double)
    result = layer(x, graph_of(dense))
    torch.testing.assert_close(result, expected(layer, kind, x, dense))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_formula(kind):
    torch.manual_seed(0)
    dense = adjacency()
    layer = layer_of(kind)
    x, graph = torch.randn(7, 5, dtype=torch.double, requires_grad=True), graph_of(dense)
    assert gradcheck(lambda x: layer(x, graph), x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_nodes_does_not_matter(kind):
    torch.manual_seed(0)
    dense, order = adjacency(), torch.randperm(7)
    layer = layer_of(kind)
    x = torch.randn(7, 5, dtype=torch.double)
    moved = layer(x[order], graph_of(dense[order][:, order]))
    torch.testing.assert_close(moved, layer(x, graph_of(dense))[order])


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_side_by_side_do_not_see_each_other(kind):
    torch.manual_seed(0)
    one, two = adjacency(5, 1), adjacency(4, 2)
    layer = layer_of(kind)
    x = torch.randn(9, 5, dtype=torch.double)
    both = layer(x, graph_of(torch.block_diag(one, two)))
    alone = torch.cat([layer(x[:5], graph_of(one)), layer(x[5:], graph_of(two))])
    torch.testing.assert_close(both, alone)


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_may_be_one_node(kind):
    layer = layer_of(kind).float()
    out = layer(torch.ones(1, 5, requires_grad=True), graph_of(torch.zeros(1, 1)))
    out.sum().backward()
    assert out.shape == (1, 4)
    assert out.isfinite().all()
