"""ResNet-18 and ResNet-50 of torchvision.

Source: K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning for image recognition. CVPR 2016.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from hemaml.nn.backbones.architecture import Architecture
from hemaml.nn.weights import published

RESNET18_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
RESNET50_URL = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
"""Each `IMAGENET1K_V1`."""


def _library(name: str) -> nn.Module:
    import torchvision

    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    return network


def _stages(network: Any) -> dict[str, nn.Module]:
    stem = OrderedDict(
        conv1=network.conv1, bn1=network.bn1, relu=network.relu, maxpool=network.maxpool
    )
    layers = {name: getattr(network, name) for name in ("layer1", "layer2", "layer3", "layer4")}
    return {"stem": nn.Sequential(stem), **layers}


def _architecture(name: str, dim: int, imagenet: Callable[[], Path]) -> Architecture:
    return Architecture(
        dim=dim,
        library=partial(_library, name),
        stages=_stages,
        classifier=("fc.",),
        files={"imagenet": imagenet},
    )


RESNET18 = _architecture("resnet18", 512, partial(published, RESNET18_URL))
RESNET50 = _architecture("resnet50", 2048, partial(published, RESNET50_URL))
