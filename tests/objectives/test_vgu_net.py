"""The graph of pixels against its definition."""

import pytest
import torch

from hemaml.objectives.wbc_segmentation.vgu_net import PixelGraph

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def graph():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PixelGraph(6, dropout=0.5).eval()


@pytest.fixture
def maps():
    return torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(1))


def test_it_is_two_convolutions_with_one_adjacency(graph, maps):
    with torch.no_grad():
        query, key, x = graph.project(maps).flatten(2).transpose(1, 2).chunk(3, dim=2)
        adjacency = (query @ key.transpose(1, 2)).softmax(dim=2)
        torch.testing.assert_close(adjacency.sum(dim=2), torch.ones(2, 20))
        for convolution, norm in zip(graph.convolutions, graph.norms, strict=True):
            x = norm(convolution(adjacency @ x).transpose(1, 2)).transpose(1, 2).relu()
        expected = x.transpose(1, 2).reshape(maps.shape)
        torch.testing.assert_close(graph(maps), expected, atol=1e-5, rtol=1e-5)


def test_a_graph_knows_no_places(graph, maps):
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    moved = maps.flatten(2)[:, :, order].view_as(maps)
    with torch.no_grad():
        expected = graph(maps).flatten(2)[:, :, order].view_as(maps)
        torch.testing.assert_close(graph(moved), expected, atol=1e-5, rtol=1e-5)


def test_features_are_dropped_in_training_alone(graph, maps):
    assert torch.equal(graph(maps), graph(maps))
    graph.train()
    assert not torch.equal(graph(maps), graph(maps))
