"""Parameter counts, with and without allocating the network."""

from collections.abc import Callable

import torch
from torch import nn


def num_parameters(network: nn.Module, *, trainable: bool = False) -> int:
    """Number of scalars that a network learns, or could; buffers do not count."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable)


def size_on_meta(build: Callable[[], nn.Module]) -> int:
    """Number of parameters of the network that `build` makes, without taking its memory."""
    with torch.device("meta"):
        return num_parameters(build())
