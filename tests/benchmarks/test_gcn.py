"""The graph network beside PyTorch Geometric's layers, its search and its answers; one thread.

    pytest tests/benchmarks/test_gcn.py -s

- 400 epochs on 1,220 nodes with 512 features: our network and training loop beside PyG's `GCNConv`
  as it is, in a plain loop, the same graph and sizes, in turns.
- Exact search of the 10 nearest of 15,000 x 512, and the memory it takes beyond its input.
- One new image attached to a bank of 10,000 by its 10 neighbours, its embedding not counted.
"""

import time

import numpy as np
import pytest
import torch

from hemaml.core.memory import PeakMemory
from hemaml.core.objective import Context
from hemaml.nn.knn_gcn import KnnGcn
from hemaml.nn.training import Patience
from hemaml.objectives.leukemia._arms import Arm, How, graph_of, train
from hemaml.objectives.leukemia._bank import Bank
from hemaml.ops.knn_graph import knn_graph, unit_rows

LARGEST_RATIO, LARGEST_SEARCH_S, LARGEST_ANSWER_MS = 2 / 3, 10, 10
NODES, EPOCHS, K = 1220, 400, 10


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def points(num):
    return np.random.default_rng(0).standard_normal((num, 512)).astype(np.float32)


def nodes(num):
    x = points(num)
    return torch.from_numpy(x), graph_of(knn_graph(unit_rows(x), K))


def ours(x, graph, labels):
    network = KnnGcn(512, 128, 2, conv="gcn", skip=False, dropout=0.5)
    arm = Arm(network, x, graph, torch.arange(976), labels[:976])
    how = How(1e-3, 5e-4, EPOCHS, EPOCHS, Patience("score", "maximize", 0))
    steps = train(
        arm, how, num_classes=2, validate=lambda: {"score": 0.0}, model=None, context=Context()
    )
    return list(steps)


def theirs(x, graph, labels):
    from torch_geometric.nn import GCNConv

    sources = graph.neighbours.long()
    targets = torch.arange(NODES).repeat_interleave(graph.degrees[:, 0])
    edges = torch.stack([sources, targets])
    first, second = GCNConv(512, 128), GCNConv(128, 2)
    parameters = [*first.parameters(), *second.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3, weight_decay=5e-4)
    weight = torch.ones(2)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        hidden = torch.dropout(first(x, edges).relu(), 0.5, True)
        out = second(hidden, edges).log_softmax(dim=1)
        loss = torch.nn.functional.nll_loss(out[:976], labels[:976], weight)
        loss.backward()
        optimiser.step()


def test_400_epochs_beside_torch_geometric():
    (x, graph), labels = nodes(NODES), torch.arange(NODES) % 2
    seconds = {ours: [], theirs: []}
    theirs(x, graph, labels)  # its import takes seconds
    for _ in range(2):
        for work, found in seconds.items():
            start = time.process_time()
            work(x, graph, labels)
            found.append(time.process_time() - start)
    best = [min(found) for found in seconds.values()]
    print(f"\n{EPOCHS} epochs on {NODES} nodes: ours {best[0]:.2f} s, PyG {best[1]:.2f} s, "
          f"ratio {best[0] / best[1]:.2f} (target: at most {LARGEST_RATIO:.2f})")  # fmt: skip
    assert best[0] < best[1]


def test_exact_search():
    unit = unit_rows(points(15_000))
    torch.set_num_threads(2)
    with PeakMemory("cpu") as before:
        pass
    with PeakMemory("cpu") as peak:
        start, computed = time.perf_counter(), time.process_time()
        knn_graph(unit, K)
        seconds, computed = time.perf_counter() - start, time.process_time() - computed
    print(
        f"\n15,000 x 512: {seconds:.1f} s on 2 cores (target: {LARGEST_SEARCH_S}), "
        f"{computed:.1f} s of their time, {peak.mb - before.mb:.0f} MB more than the input"
    )
    assert peak.mb - before.mb < 900  # all pairs at once would take that


def test_one_new_image():
    x, graph = nodes(10_000)
    network = KnnGcn(512, 128, 2, conv="gcn", skip=False, dropout=0.5)
    bank = Bank(x, graph, [0] * len(x), [str(i) for i in range(len(x))], np.empty((0, 0, 0, 3)))
    relayed = bank.relayed(network)
    new = np.random.default_rng(1).standard_normal((20, 512)).astype(np.float32)
    times = []
    for row in new:
        start, computed = time.perf_counter(), time.process_time()
        bank.attached(network, relayed, row[None], bank.links(row[None], K)[0])
        times.append((time.perf_counter() - start, time.process_time() - computed))
    wall, own = np.median(times, axis=0) * 1000
    print(f"\none image against a bank of 10,000: {wall:.1f} ms (target: {LARGEST_ANSWER_MS}), "
          f"{own:.1f} ms of the processor's time")  # fmt: skip
    assert wall > 0
