"""DenseNet-121 of torchvision, with weights from ImageNet or from tissue (KimiaNet).

torchvision's network applies its last ReLU in place, to what `norm5` has just given: whoever keeps
that, as Grad-CAM does, then finds it without its negative values. Here the ReLU makes a tensor of
its own.

KimiaNet was trained without that last ReLU. As in the paper its weights take part in the usual
network, which has it.

Sources: G. Huang, Z. Liu, L. van der Maaten, K. Weinberger: Densely connected convolutional
networks. CVPR 2017. A. Riasatian et al.: Fine-tuning and training of DenseNet for histopathology
image representation using TCGA diagnostic slides. Medical Image Analysis 70 (2021) 102032.
"""

import re
from collections import OrderedDict
from functools import partial
from typing import Any

from torch import nn

from hemaml.nn.backbones.architecture import Architecture
from hemaml.nn.weights import by_hand, published

DENSENET121_URL = "https://download.pytorch.org/models/densenet121-a639ec97.pth"
"""`IMAGENET1K_V1`."""
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")
"""Files of torch before 0.4 write `norm.1` for `norm1`."""


def _library() -> nn.Module:
    from torchvision.models import densenet121

    network: nn.Module = densenet121(weights=None)
    return network


def _stages(network: Any) -> dict[str, nn.Module]:
    features = network.features
    stages: dict[str, nn.Module] = {"stem": _part(features, "conv0", "norm0", "relu0", "pool0")}
    for index in (1, 2, 3):
        stages[f"layer{index}"] = _part(features, f"denseblock{index}", f"transition{index}")
    last = _part(features, "denseblock4", "norm5")
    last.add_module("relu5", nn.ReLU())
    stages["layer4"] = last
    return stages


def _part(features: Any, *names: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name, getattr(features, name)) for name in names))


def library_name(name: str) -> str:
    """A name in torchvision's file or in KimiaNet's to that of the library's network.

    KimiaNet's file is of a sequence of `features` and a mean, with a head `fc_4` of its own.
    """
    name = re.sub(r"^model\.0\.", "features.", name)
    name = re.sub(r"^fc_4\.", "classifier.", name)
    return OLD_NAME.sub(r"\1", name)


DENSENET121 = Architecture(
    dim=1024,
    library=_library,
    stages=_stages,
    classifier=("classifier.",),
    files={
        "imagenet": partial(published, DENSENET121_URL),
        "kimianet": partial(by_hand, "kimianet"),
    },
    rename=library_name,
)
