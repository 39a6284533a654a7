"""The paper's pipeline as a good hand would write it with torchvision and torch-geometric."""

import numpy as np
import torch
from peers.gcn_workload import EPOCHS, SIZE
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.utils.data import DataLoader
from torch_geometric.nn import GCNConv
from torchvision.models import resnet18
from torchvision.transforms import v2

TRANSFORM = v2.Compose(
    [
        v2.Resize((SIZE, SIZE)),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


@torch.inference_mode()
def embedded(data):
    """N x 512; the weights are random, which takes as long as others."""
    torch.manual_seed(0)
    network = resnet18(weights=None).eval()
    network.fc = nn.Identity()
    images = [TRANSFORM(Image.fromarray(image)) for image in data.images]
    return torch.cat([network(batch) for batch in DataLoader(images, batch_size=32)])


class Network(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.first, self.second = GCNConv(512, hidden), GCNConv(hidden, 2)

    def forward(self, x, edges):
        hidden = self.first(x, edges).relu()
        hidden = nn.functional.dropout(hidden, 0.5, self.training)
        return self.second(hidden, edges).log_softmax(dim=1)


def graph_of(x, k):
    finder = NearestNeighbors(n_neighbors=k + 1, metric="cosine").fit(x.numpy())
    neighbours = finder.kneighbors(x.numpy(), return_distance=False)[:, 1:]
    sources = np.repeat(np.arange(len(x)), k)
    return torch.from_numpy(np.stack([sources, neighbours.ravel()]))


def fit(point, x, train, val, seed=0):
    """Yields (epoch, scores, network); the nodes of the validation part come last."""
    torch.manual_seed(seed)
    edges, labels = graph_of(x, point["k"]), torch.tensor([*train.labels, *val.labels])
    weight = len(train) / (2 * torch.bincount(labels[: len(train)]).float())
    network = Network(point["hidden"])
    optimiser = torch.optim.Adam(network.parameters(), lr=point["lr"], weight_decay=5e-4)
    for epoch in range(EPOCHS):
        network.train()
        optimiser.zero_grad()
        out = network(x, edges)[: len(train)]
        loss = nn.functional.nll_loss(out, labels[: len(train)], weight)
        loss.backward()
        optimiser.step()
        network.eval()
        with torch.inference_mode():
            scores = network(x, edges)[len(train) :].exp()[:, 1]
        auc = roc_auc_score(val.labels, scores.numpy())
        yield epoch, {"loss": loss.item(), "auc": auc}, network
