"""What is fixed for a backbone: its stages, its input, and the files that hold its weights.

Shape suffixes: N batch, S side of the image, C channels.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_SCALE = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""Grey levels that become 0 and 1 for the networks of torchvision."""


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
        return self.maps(x_NCSS, 0, stage)

    def onward(self, x: Tensor, stage: int) -> Tensor:
        """Features of what `up_to` gave for the same number of stages."""
        if stage == len(self):
            return x
        return pooled(self.maps(x, stage, len(self)))

    def maps(self, x: Tensor, first: int, last: int) -> Tensor:
        """Feature maps behind stage `last` of those behind stage `first`, before any mean."""
        for module in list(self)[first:last]:
            x = module(x)
        return x


def pooled(maps_NCHW: Tensor) -> Tensor:
    """The mean over all places: N x C."""
    return functional.adaptive_avg_pool2d(maps_NCHW, 1).flatten(1)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What is fixed for a backbone.

    Attributes:
        dim: Features of an image.
        library: The library's network with new weights.
        stages: That network's modules as stages, from the image upwards, without the classifier.
        classifier: How the library's names of the classifier's tensors start.
        files: Weights by name (`imagenet`), each to the file that holds them. Raises `ConfigError`
            where it cannot be had.
        rename: A name in a published file to the library's name.
        multiple: Sides of images are multiples of this.
        mean: Grey level of each colour that becomes 0.
        scale: Grey levels of each colour that become 1.
    """

    dim: int
    library: Callable[[], nn.Module]
    stages: Callable[[Any], dict[str, nn.Module]]
    classifier: tuple[str, ...]
    files: Mapping[str, Callable[[], Path]] = field(default_factory=dict)
    rename: Callable[[str], str] = lambda name: name
    multiple: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    scale: tuple[float, float, float] = IMAGENET_SCALE

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
