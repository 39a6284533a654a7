"""Networks that turn an image into features, cut into five stages, with the weights asked for.

Stages end where the resolution is halved, so that a number of unfrozen stages means about the same
for every backbone. Files with the library's names of tensors load, and those with ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hemaml.core.errors import ConfigError, UnknownName
from hemaml.core.tracker import is_recorded
from hemaml.nn.backbones.architecture import Architecture, StagedNetwork
from hemaml.nn.backbones.densenet import DENSENET121
from hemaml.nn.backbones.efficientnet_lite import EFFICIENTNET_LITE0
from hemaml.nn.backbones.resnet import RESNET18, RESNET50
from hemaml.nn.parameters import count_unbuilt
from hemaml.nn.weights import (
    OTHER_WAYS,
    StateDict,
    from_url,
    is_url,
    load_strictly,
    read_state,
    state_digest,
)

__all__ = [
    "Architecture",
    "Backbone",
    "Loaded",
    "StagedNetwork",
    "architecture_of",
    "frozen_backbone",
    "load_backbone",
    "num_parameters",
]

Backbone = Literal["resnet18", "resnet50", "densenet121", "efficientnet_lite0"]
ARCHITECTURES: dict[Backbone, Architecture] = {
    "resnet18": RESNET18,
    "resnet50": RESNET50,
    "densenet121": DENSENET121,
    "efficientnet_lite0": EFFICIENTNET_LITE0,
}
NUM_STAGES = 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """A backbone with its weights.

    Attributes:
        name: Of the backbone.
        architecture: What is fixed for it.
        network: N x 3 x S x S normalised images to N x dim features; in evaluation mode.
        digest: Hex digest of the weights as they were loaded: part of keys in the cache.
        origin: In words, which file the weights came from, what matched, and what was left out.
    """

    name: Backbone
    architecture: Architecture
    network: StagedNetwork
    digest: str
    origin: str = ""

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
        weights: `none` for random ones, a name of `Architecture.files`, a registered model as
            `models:/name@alias`, a run's as `runs:/id`, an address that ends in `#sha256=...`, or
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
    origin = "random weights"
    if weights != "none":
        path = _located(architecture, weights, registered)
        state, left_out = _own_names(read_state(path), architecture, names)
        load_strictly(network, state, source=f"`weights: {weights}` ({path})")
        origin = f"{weights}: all {len(network.state_dict())} tensors of {name} matched"
        origin += f"; left out: {', '.join(left_out)}" if left_out else ""
    network.eval()
    return Loaded(name, architecture, network, state_digest(network.state_dict()), origin)


def frozen_backbone(name: Backbone, weights: str, registered: Callable[[str], Path]) -> Loaded:
    """As `load_backbone`, but one for all who ask this process for the same: not to be trained."""
    if weights == "none":
        return _shared(name, weights, "", 0)
    path = _located(architecture_of(name), weights, registered)
    return _shared(name, weights, str(path), path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _shared(name: Backbone, weights: str, path: str, changed: int) -> Loaded:
    return load_backbone(name, weights, lambda _: Path(path))


@cache
def num_parameters(name: Backbone) -> int:
    """Of a backbone, without building it."""
    return count_unbuilt(lambda: architecture_of(name).build()[0])


def architecture_of(name: str) -> Architecture:
    """What is fixed for a backbone. Raises `UnknownName` for other names."""
    for known, architecture in ARCHITECTURES.items():
        if known == name:
            return architecture
    raise UnknownName("backbone", name, ARCHITECTURES)


def _located(architecture: Architecture, weights: str, registered: Callable[[str], Path]) -> Path:
    if weights in architecture.files:
        return architecture.files[weights]()
    if is_recorded(weights):
        return registered(weights)
    if is_url(weights):
        return from_url(weights)
    path = Path(weights).expanduser()
    if not path.exists():
        raise ConfigError(
            f"`weights` must be {', '.join(['none', *architecture.files])}, an address, "
            f"`models:/...` or a path, but there is no {weights!r}. {OTHER_WAYS}"
        )
    return path


def _own_names(
    state: StateDict, architecture: Architecture, names: Mapping[str, str]
) -> tuple[StateDict, list[str]]:
    """The backbone's part of a file under the names of our network, and what is left out.

    Names that fit nothing stay as they are, for the report.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}  # DataParallel's
    prefix = "backbone."
    if any(key.startswith(prefix) for key in state):
        own = {key[len(prefix) :]: v for key, v in state.items() if key.startswith(prefix)}
        return own, sorted(key for key in state if not key.startswith(prefix))
    library = {architecture.rename(key): value for key, value in state.items()}
    left_out = sorted(k for k in library if k.startswith((*architecture.classifier, "head.")))
    own = {names.get(key, key): v for key, v in library.items() if key not in left_out}
    return own, left_out
