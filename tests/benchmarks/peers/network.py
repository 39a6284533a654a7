"""SMGNN as a good hand would write it with PyTorch Geometric, scipy and torch's own convolutions.

The same architecture, parameters, losses, augmentation and schedule as hemaml's. What is hemaml's
own here is what the peers share with it on purpose: the reading of the data, the scores, and (for
the tuned one) SNIC.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from skimage.segmentation import slic
from torch import nn
from torch.nn.functional import mse_loss, normalize
from torch.utils.data import DataLoader
from torch_geometric.nn import GINConv

from hemaml.ops.superpixels import superpixels
from hemaml.tasks.wbc_segmentation import score

MARGIN, CLASSES, ALPHA, WIDTH, CHANNELS = 2, 3, 3, 22, 16


def snic_of(image, scale):
    return superpixels(image, scale=scale, compactness=5, method="snic", connectivity=8)


def slic_of(image, scale):
    count = image.shape[0] * image.shape[1] // scale
    return slic(image, n_segments=count, compactness=5, start_label=0)


def graph_of(image, labels):
    """Features and edges of the superpixels: mean colours, centres, all within a diamond."""
    rows, columns = np.indices(labels.shape)
    layers = [*(image / 255.0).transpose(2, 0, 1), rows, columns]
    sizes = np.bincount(labels.ravel())
    means = [np.bincount(labels.ravel(), weights=layer.ravel()) / sizes for layer in layers]
    features = np.stack(means, axis=1).astype(np.float32)
    radius = ALPHA * (labels.size / len(features)) ** 0.5
    pairs = cKDTree(features[:, 3:]).query_pairs(radius, p=1, output_type="ndarray").T
    return features, np.concatenate([pairs, pairs[::-1]], axis=1)


def sample(image, mask, make, scale):
    labels = make(image, scale)
    features, edges = graph_of(image, labels)
    low, high = np.quantile(image.reshape(-1, 3), (0.01, 0.99), axis=0)
    colours = ((image - low) * (2 / np.maximum(high - low, 1)) - 1).astype(np.float32)
    features[:, :3] = (features[:, :3] * 255 - low) * (2 / np.maximum(high - low, 1)) - 1
    half = max(labels.shape) / 2
    features[:, 3:] = (features[:, 3:] - (np.array(labels.shape) - 1) / 2) / half
    sizes = np.bincount(labels.ravel())
    target = np.bincount(labels.ravel(), weights=mask.ravel()) / sizes / (CLASSES - 1)
    return colours, labels, mask, features, edges, target.astype(np.float32)


def collate(items, generator=None):
    """One batch; with a generator, each image under its own flips and transposition."""
    side = max(max(item[1].shape) for item in items) + MARGIN
    total = sum(len(item[3]) for item in items)
    colours = torch.zeros(len(items), 3, side, side)
    labels = torch.full((len(items), side, side), total)
    masks = torch.full((len(items), side, side), 255)
    features, edges, targets, image_of, first = [], [], [], [], 0
    for index, (colour, label, mask, feature, edge, target) in enumerate(items):
        code = int(torch.randint(8, (1,), generator=generator)) if generator else 0
        turned, places = [colour, label, mask], feature[:, 3:].copy()
        if code & 4:
            turned, places = [each.swapaxes(0, 1) for each in turned], places[:, ::-1].copy()
        for axis in (0, 1):
            if code & (1 << axis):
                turned, places[:, axis] = [np.flip(t, axis) for t in turned], -places[:, axis]
        rows, columns = turned[1].shape
        colours[index, :, :rows, :columns] = torch.from_numpy(turned[0].copy()).permute(2, 0, 1)
        labels[index, :rows, :columns] = torch.from_numpy(turned[1].copy()) + first
        masks[index, :rows, :columns] = torch.from_numpy(turned[2].copy())
        features.append(np.concatenate([feature[:, :3], places], axis=1))
        edges.append(edge + first)
        targets.append(target)
        image_of.append(np.full(len(feature), index))
        first += len(feature)
    arrays = (np.concatenate(features), np.concatenate(edges, axis=1), np.concatenate(targets))
    return colours, labels, masks, *map(torch.from_numpy, (*arrays, np.concatenate(image_of)))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [10, WIDTH, WIDTH, WIDTH]
        self.layers = nn.ModuleList(
            GINConv(
                nn.Sequential(
                    nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(), nn.Linear(o, o)
                ),
                train_eps=True,
                aggr="mean",  # a plain sum over 18 neighbours learns nothing in so few epochs
            )
            for i, o in zip(sizes, sizes[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in self.layers)
        self.mix = nn.Conv2d(WIDTH + 3, CHANNELS, 3, padding=1)
        self.classify = nn.Conv2d(CHANNELS, CLASSES, 3, padding=2, dilation=2)
        self.a, self.b = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        colours, labels, _, features, edges, _, image_of = batch
        count = torch.bincount(image_of).unsqueeze(1)
        means = torch.zeros(len(count), 5).index_add(0, image_of, features) / count
        x = torch.cat([features, means[image_of]], dim=1)
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            new = layer(x, edges)
            x = norm(new + x if index else new)
            x = x.relu() if index < 2 else x
        painted = torch.cat([x, x.new_zeros(1, WIDTH)])[labels].permute(0, 3, 1, 2)
        inside = (labels < len(x)).unsqueeze(1)
        hidden = self.mix(torch.cat([painted, colours], dim=1)).relu() * inside
        return self.classify(hidden), x, inside


def loss_of(network, batch, weight, generator):
    logits, x, inside = network(batch)
    p = logits.softmax(dim=1) * inside
    g = torch.stack([batch[2] == c for c in range(CLASSES)], dim=1).float()
    shared, sizes = (p * g).sum((0, 2, 3)), p.sum((0, 2, 3)) + g.sum((0, 2, 3))
    dice = (1 - (2 * shared + 1) / (sizes + 1)).mean()
    i, j = (torch.randperm(len(x), generator=generator)[:512] for _ in range(2))
    unit, y = normalize(x, dim=1), batch[5]
    similarity = network.a * (unit[i] @ unit[j].T) + network.b
    return dice + weight * mse_loss(similarity, (y[i, None] + y[None, j]) / 2)


class Predictor:
    """What hemaml's score asks for."""

    def __init__(self, network, samples):
        self.network, self.samples = network, samples

    @torch.inference_mode()
    def predict(self, images):
        self.network.eval()
        found = []
        for item in self.samples:
            rows, columns = item[1].shape
            logits = self.network(collate([item]))[0][0, :, :rows, :columns]
            found.append(logits.softmax(0).permute(1, 2, 0).numpy())
        return found


def fit(params, data, seed, make):
    """Yields (index, scores, network) after each epoch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    train, val = (
        [sample(i, m, make, int(params.scale)) for i, m in zip(d.images, d.masks, strict=True)]
        for d in (data.train, data.val)
    )
    loader = DataLoader(
        train, params.batch_size, shuffle=True, collate_fn=lambda items: collate(items, generator)
    )
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=params.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, params.lr, total_steps=params.epochs * len(loader)
    )
    for epoch in range(params.epochs):
        network.train()
        for batch in loader:
            optimiser.zero_grad()
            loss_of(network, batch, params.lambda_, generator).backward()
            optimiser.step()
            schedule.step()
        yield epoch, score(Predictor(network, val), data.val), network
