"""Convolutions on graphs of neighbours against PyTorch Geometric's, and queries by definition."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import cross_entropy

from hemaml.nn.graph_convolutions import Graph
from hemaml.nn.knn_gcn import KnnGcn, Links, edgeless, explain_edges
from hemaml.ops.knn_graph import knn_graph, nearest, undirected, unit_rows

NODES, FEATURES, HIDDEN, CLASSES, K = 40, 6, 5, 3, 4
CONVS = ["gcn", "gat", "sage", "cheb"]


@pytest.fixture
def bank():
    points = np.random.default_rng(0).standard_normal((NODES, FEATURES)).astype(np.float32)
    starts, neighbours = undirected(knn_graph(unit_rows(points), K).indices)
    return torch.from_numpy(points), Graph(torch.from_numpy(starts), torch.from_numpy(neighbours))


def network_of(conv, *, skip=False):
    torch.manual_seed(1)
    network = KnnGcn(FEATURES, HIDDEN, CLASSES, conv=conv, skip=skip, dropout=0.5).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):  # zero at first
            torch.nn.init.normal_(parameter)
    return network


def logits_of(network, x, graph):
    return network(network.constant(x, graph), x, graph)


def links_of(x, queries, graph):
    indices = nearest(unit_rows(queries.numpy()), unit_rows(x.numpy()), K).indices
    neighbours = torch.from_numpy(np.ascontiguousarray(indices))
    return Links(neighbours, graph.degrees[:, 0].float()[neighbours])


def edges(graph):
    nodes = torch.arange(len(graph.starts) - 1).repeat_interleave(graph.degrees[:, 0])
    return torch.stack([graph.neighbours.long(), nodes])


@pytest.mark.parametrize("conv", ["gcn", "sage", "cheb"])
def test_both_layers_are_those_of_torch_geometric(conv, bank):
    from torch_geometric.nn import ChebConv, GCNConv, SAGEConv

    x, graph = bank
    network, layers = network_of(conv), []
    for layer, num_in, num_out in (
        (network.first, FEATURES, HIDDEN),
        (network.second, HIDDEN, CLASSES),
    ):
        theirs = {
            "gcn": lambda i, o: GCNConv(i, o),
            "sage": lambda i, o: SAGEConv(i, o),
            "cheb": lambda i, o: ChebConv(i, o, K=3),
        }[conv](num_in, num_out)
        linears = {
            "gcn": lambda t: [t.lin],
            "sage": lambda t: [t.lin_r, t.lin_l],
            "cheb": lambda t: list(t.lins),
        }[conv](theirs)
        bias = theirs.lin_l.bias if conv == "sage" else theirs.bias
        with torch.no_grad():
            bias.copy_(layer.bias)
            for linear, weight in zip(linears, layer.weight, strict=True):
                linear.weight.copy_(weight.T)
        layers.append(theirs)
    expected = layers[1](layers[0](x, edges(graph)).relu(), edges(graph))
    torch.testing.assert_close(logits_of(network, x, graph), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("conv", CONVS)
def test_what_is_computed_once_changes_nothing(conv, bank):
    x, graph = bank
    network = network_of(conv, skip=True)
    hidden = network.first(x, graph).relu()
    expected = network.second(hidden, graph) + network.skip(x)
    torch.testing.assert_close(logits_of(network, x, graph), expected, atol=1e-5, rtol=1e-4)


def test_a_query_hears_its_neighbours_as_the_formula_says(bank):
    """A neighbour's degree counts its own loop and the edge to the query; the bank is as it was."""
    x, graph = bank
    network, queries = network_of("gcn"), torch.randn(3, FEATURES)
    links = links_of(x, queries, graph)
    relayed = network.relay(x, graph, network.constant(x, graph))
    _, found = network.attach(queries, relayed, links)
    hidden = network.first(x, graph).relu()
    w1, w2 = network.first.weight[0], network.second.weight[0]
    for query, expected in zip(queries, found, strict=True):
        row = links.neighbours[[i for i in range(3) if torch.equal(queries[i], query)][0]]
        weights = [((K + 1) * (int(graph.degrees[u]) + 2)) ** -0.5 for u in row]
        h = sum(w * (x[u] @ w1) for w, u in zip(weights, row, strict=True))
        h = (h + query @ w1 / (K + 1) + network.first.bias).relu()
        out = sum(w * (hidden[u] @ w2) for w, u in zip(weights, row, strict=True))
        out = out + h @ w2 / (K + 1) + network.second.bias
        torch.testing.assert_close(expected, out, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("conv", CONVS)
def test_answers_depend_neither_on_order_nor_on_the_batch(conv, bank):
    x, graph = bank
    network, queries = network_of(conv, skip=True), torch.randn(7, FEATURES)
    relayed = network.relay(x, graph, network.constant(x, graph))
    kept = [relayed.first.clone(), relayed.second.clone(), x.clone()]

    def answers(chosen):
        return network.attach(chosen, relayed, links_of(x, chosen, graph))[1]

    together = answers(queries)
    torch.testing.assert_close(answers(queries.flip(0)).flip(0), together, atol=1e-6, rtol=1e-5)
    for index in range(7):
        alone = answers(queries[[index]])[0]
        torch.testing.assert_close(alone, together[index], atol=1e-6, rtol=1e-5)
    assert all(map(torch.equal, kept, [relayed.first, relayed.second, x]))


@pytest.mark.parametrize("conv", CONVS)
def test_a_query_equal_to_its_neighbours_answers_as_they_do(conv):
    """Nodes that are all alike make any propagation the identity, up to the degrees' weights."""
    starts, neighbours = undirected(np.array([[(i + d) % 9 for d in (1, 2)] for i in range(9)]))
    graph = Graph(torch.from_numpy(starts), torch.from_numpy(neighbours))
    x = torch.ones(9, FEATURES)
    network = network_of(conv)
    with torch.no_grad():
        nodes = logits_of(network, x, graph)
        degree = float(graph.degrees[0, 0])
        k = int(degree)
        links = Links(torch.arange(k)[None], torch.full((1, k), degree))
        relayed = network.relay(x, graph, network.constant(x, graph))
        _, found = network.attach(x[:1], relayed, links)
    if conv in ("gat", "sage"):  # plain means
        torch.testing.assert_close(found[0], nodes[0], atol=1e-5, rtol=1e-4)
    else:
        assert found.argmax() == nodes[0].argmax()


def test_a_network_without_a_graph_is_a_perceptron(bank):
    x, _ = bank
    network = network_of("none")
    hidden = (x @ network.first.weight[0] + network.first.bias).relu()
    expected = hidden @ network.second.weight[0] + network.second.bias
    found = logits_of(network, x, edgeless(NODES))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("conv", CONVS)
def test_all_weights_get_gradients(conv, bank):
    x, graph = bank
    network = network_of(conv, skip=True).train()
    labels = torch.arange(NODES) % CLASSES
    cross_entropy(logits_of(network, x, graph), labels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_edges_rank_as_what_the_class_loses_without_each(bank):
    """Activations as after training: no edge decides alone."""
    x, graph = bank
    network, draws = network_of("gcn"), torch.Generator().manual_seed(1)
    links = links_of(x, torch.ones(1, FEATURES), graph)
    relayed, ranks = network.relay(x, graph, network.constant(x, graph)), []
    for _ in range(20):
        told = type(relayed)(
            torch.zeros_like(relayed.first),
            torch.randn(relayed.second.shape, generator=draws),
        )
        query = torch.randn(1, FEATURES, generator=draws)

        def log_probabilities(mask):
            masked = Links(links.neighbours, links.degrees, mask)
            return network.attach(query, told, masked)[1].log_softmax(dim=1)[0]  # noqa: B023

        with torch.no_grad():
            whole = log_probabilities(torch.ones(1, K))
            chosen = int(whole.argmax())
            without = [log_probabilities(1 - torch.eye(K)[[j]])[chosen] for j in range(K)]
        weights = explain_edges(network, query, told, links)
        assert weights.max() - weights.min() > 0.05
        ranks.append(spearmanr(weights, [whole[chosen] - left for left in without]).statistic)
    assert np.mean(ranks) > 0.6


def test_the_edge_that_decides_is_the_one_explained(bank):
    x, graph = bank
    network = network_of("gcn")
    query = torch.zeros(1, FEATURES)
    links = links_of(x, torch.ones(1, FEATURES), graph)
    relayed = network.relay(x, graph, network.constant(x, graph))
    for place in range(K):  # only this neighbour has anything to say
        second = torch.zeros_like(relayed.second)
        second[links.neighbours[0, place], 0] = 50.0
        only = type(relayed)(torch.zeros_like(relayed.first), second)
        weights = explain_edges(network, query, only, links)
        assert ((weights >= 0) & (weights <= 1)).all()
        assert int(weights.argmax()) == place
        assert torch.equal(weights, explain_edges(network, query, only, links))
