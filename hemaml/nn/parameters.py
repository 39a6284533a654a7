"""Parameter counts, of built networks and of networks that are only described."""

from collections.abc import Callable

import torch
from torch import nn


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """Numbers in the network's parameters: all of them, and those that training changes.

    A parameter that several layers share counts once; buffers do not count.
    """
    parameters = list(network.parameters())
    trainable = (p.numel() for p in parameters if p.requires_grad)
    return sum(p.numel() for p in parameters), sum(trainable)


def count_unbuilt(build: Callable[[], nn.Module]) -> int:
    """Parameters of the network that `build` makes, without taking memory for their values."""
    with torch.device("meta"):
        return count_parameters(build())[0]
