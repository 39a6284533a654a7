"""Small explainable classifiers on the real backbones, and images like stained tissue."""

import json
from functools import cache

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hemaml.core.dataset import Dataset
from hemaml.nn.backbones import architecture_of
from hemaml.nn.classifier import ImageClassifier
from hemaml.tasks._classification import View

CLASSES = ("CLL", "FL", "MCL")


@cache
def weights(name):
    """Random weights of a backbone whose normalisations fit what they get."""
    torch.manual_seed(0)
    backbone, _ = architecture_of(name).build()
    with torch.no_grad():
        backbone.train()(torch.randn(4, 3, 64, 64))
    return {k: v.clone() for k, v in backbone.state_dict().items()}


def network(name="resnet18", *, unfrozen=0, dropout=0.3):
    architecture = architecture_of(name)
    backbone, _ = architecture.build()
    backbone.load_state_dict(weights(name))
    torch.manual_seed(1)
    num = len(CLASSES)
    net = ImageClassifier(
        backbone, dim=architecture.dim, num_classes=num, unfrozen=unfrozen, dropout=dropout
    )
    torch.nn.init.normal_(net.head.weight, std=0.2)
    return net.eval()


class Tissue:
    """A classifier that sees an image whole, or as a grid of `tiles` x `tiles`."""

    def __init__(self, network, *, size=64, tiles=0):
        self.network, self.size, self.tiles = network, size, tiles
        self.classes = CLASSES

    @property
    def num_trainable(self):
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    def views(self, image):
        height, width = image.shape[:2]
        if not self.tiles:
            return [self._view(image, 0, 0, height, width)]
        high, wide = height // self.tiles, width // self.tiles
        return [
            self._view(image, row * high, column * wide, high, wide)
            for row in range(self.tiles)
            for column in range(self.tiles)
        ]

    def _view(self, image, top, left, height, width):
        shown = image[top : top + height, left : left + width]
        scaled = Image.fromarray(shown).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return View(top, left, height, width, np.asarray(scaled))

    def normalise(self, pixels):
        return architecture_of("resnet18").normalise(pixels)

    @torch.inference_mode()
    def predict(self, images):
        found = []
        for image in images:
            pixels = np.stack([view.pixels for view in self.views(image)])
            logits = self.network.eval()(self.normalise(torch.from_numpy(pixels)))
            found.append(logits.softmax(dim=1).mean(dim=0).numpy())
        return found

    def embed(self, images):
        return {}

    def save(self, folder):
        state = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"size": self.size, "tiles": self.tiles}))

    @classmethod
    def load(cls, folder):
        net = network()
        net.load_state_dict(load_file(folder / "model.safetensors"))
        return cls(net, **json.loads((folder / "config.json").read_text()))


def tissue(seed=0, height=72, width=96, num=6):
    """Pink ground with violet discs, and where the discs are."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (232, 168, 200), np.float64)
    y, x = np.mgrid[:height, :width]
    inside = np.zeros((height, width), bool)
    for _ in range(num):
        centre = rng.uniform(0.15, 0.85, 2) * (height, width)
        inside |= np.hypot(y - centre[0], x - centre[1]) < height / 10
    image[inside] = (92, 52, 140)
    image += rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), inside


def dataset(num=9, **how):
    images = tuple(tissue(seed, **how)[0] for seed in range(num))
    names = tuple(f"slide-{i:02d}" for i in range(num))
    labels = tuple(i % 3 for i in range(num))
    return Dataset("tissue", CLASSES, names, images, names, labels=labels)
