"""The fitted graph network: frozen backbone, bank of training images, and two graph convolutions.

Shape suffixes: N nodes of the bank; Q new images; F features; C classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from hemaml.core.cache import array_digest
from hemaml.core.errors import ConfigError
from hemaml.core.types import Float32Array, Frozen, UInt8Array
from hemaml.data.pixels import scaled
from hemaml.nn.backbones import Backbone, Loaded, architecture_of
from hemaml.nn.knn_gcn import Conv, KnnGcn, Links, edgeless
from hemaml.nn.parameters import count_parameters
from hemaml.nn.weights import BACKBONE_FILE
from hemaml.objectives.leukemia._bank import Bank, bank_from, bank_tensors
from hemaml.tasks.leukemia import Neighbourhood

IMAGES_AT_ONCE = 32
"""In one batch of a prediction."""


class Params(Frozen):
    """What can be fixed or searched."""

    backbone: Backbone = Field(default="resnet18", description="The frozen network.")
    weights: str = Field(
        default="imagenet",
        description="none, imagenet, models:/name@alias, runs:/id, or the path of a file or saved "
        "model.",
    )
    size: int = Field(default=128, ge=32, le=1024, description="Side of the images in pixels.")
    k: int = Field(default=10, ge=1, le=1000, description="Neighbours of an image.")
    conv: Conv = Field(default="gcn", description="Kind of both graph convolutions.")
    hidden: int = Field(default=128, ge=1, le=4096, description="Width between them.")
    skip: bool = Field(default=False, description="Adds a linear map of the embedding to the end.")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Share of hidden values dropped.")
    lr: float = Field(default=1e-3, gt=0, le=1, description="Adam's learning rate.")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="Adam's L2 penalty.")
    epochs: int = Field(default=400, ge=1, le=100_000, description="Updates with the whole graph.")
    validate_every: int = Field(default=20, ge=1, le=10_000, description="Epochs per validation.")
    patience: int = Field(
        default=0, ge=0, le=10_000, description="Ends after so many validations without a better."
    )
    labels: float = Field(
        default=1, gt=0, le=1, description="Share of the training labels that are used."
    )
    draw: int = Field(
        default=0, ge=0, le=9999, description="Which labels: the same for the same number."
    )
    transductive: bool = Field(default=True, description="Also trains as the paper does.")
    mlp: bool = Field(default=True, description="Also trains without a graph, to compare with.")
    thumbnail: int = Field(
        default=48, ge=0, le=256, description="Side of the bank's images in pictures; 0 for none."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        architecture_of(self.backbone).check_size(self.size)
        return self


def build(params: Params, num_classes: int, *, graph: bool = True) -> KnnGcn:
    """The network on top of the embeddings, with new weights from torch's global generator."""
    return KnnGcn(
        architecture_of(params.backbone).dim,
        params.hidden,
        num_classes,
        conv=params.conv if graph else "none",
        skip=params.skip,
        dropout=params.dropout,
    )


class GcnModel:
    """A fitted classifier with its bank of training images.

    Args:
        params: Its parameters.
        loaded: The frozen backbone.
        network: The graph network.
        bank: Training images as nodes.
        classes: Names of the classes, in index order.
        mlp: The network without a graph, or None.
        seen: Digest of an image that was a node of the transductive graph to its probabilities.
        known: Images that will be predicted again and again, and their N x F embeddings.
    """

    def __init__(
        self,
        params: Params,
        loaded: Loaded,
        network: KnnGcn,
        bank: Bank,
        classes: Sequence[str],
        *,
        mlp: KnnGcn | None = None,
        seen: Mapping[str, Float32Array] | None = None,
        known: tuple[Sequence[UInt8Array], Float32Array] | None = None,
    ) -> None:
        self.params = params
        self.loaded = loaded
        self.network = network
        self.bank = bank
        self.classes = tuple(classes)
        self.mlp = mlp
        self.seen = dict(seen or {})
        self._known = known
        self._linked: tuple[Float32Array, Links] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Takes the network's weights as they are now for what the bank hands to new images."""
        self._relayed = self.bank.relayed(self.network)

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed: the graph network's."""
        return count_parameters(self.network)[1]

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """C probabilities for each image, of any sizes, whatever else is predicted."""
        return list(self._attached(self.embeddings(images))[1])

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """`backbone`: N x F embeddings; `graph`: N x hidden, behind the first convolution."""
        features = self.embeddings(images)
        return {"backbone": features, "graph": self._attached(features)[0]}

    def predict_and_embed(
        self, images: Sequence[UInt8Array]
    ) -> tuple[list[Float32Array], Float32Array]:
        """Probabilities, and `backbone` features, in one pass."""
        features = self.embeddings(images)
        return list(self._attached(features)[1]), features

    def neighbourhood(self, image: UInt8Array) -> Neighbourhood:
        """The image's k neighbours in the bank, with what each edge matters to its class."""
        return self.bank.neighbourhood(
            self.network, self._relayed, self.embeddings([image]), self.params.k
        )

    def without_graph(self) -> "MlpView | None":
        """The perceptron on the same embeddings, where it was trained."""
        return None if self.mlp is None else MlpView(self, self.mlp)

    def transductive(self) -> "TransductiveView | None":
        """The answers for images that were in the graph, where that was trained."""
        return TransductiveView(self) if self.params.transductive else None

    def embeddings(self, images: Sequence[UInt8Array]) -> Float32Array:
        """N x F of the frozen backbone."""
        if self._known is not None and images is self._known[0]:
            return self._known[1]
        found = []
        for first in range(0, len(images), IMAGES_AT_ONCE):
            chunk = images[first : first + IMAGES_AT_ONCE]
            pixels = np.stack([scaled(image, self.params.size) for image in chunk])
            found.append(_embedded(self.loaded, pixels, str(self.bank.device)))
        features = np.concatenate(found)
        if isinstance(images, tuple):  # a data set's, which each figure asks for again
            self._known = images, features
        return features

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors`, the backbone and `config.json` into an existing folder."""
        backbone = folder / BACKBONE_FILE.format(self.loaded.digest[:16])
        if not backbone.exists():  # frozen: what an earlier step left there is the same
            state = self.loaded.network.state_dict().items()
            part = backbone.with_suffix(".part")
            save_file({f"backbone.{k}": v.cpu().contiguous() for k, v in state}, part)
            part.replace(backbone)
        parts = {"network": self.network, "mlp": self.mlp}
        tensors = {
            f"{part}.{name}": value
            for part, network in parts.items()
            if network is not None
            for name, value in network.state_dict().items()
        }
        tensors |= {f"bank.{name}": value for name, value in bank_tensors(self.bank).items()}
        if self.seen:
            tensors["seen"] = torch.from_numpy(np.stack(list(self.seen.values())))
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()},
                  folder / "model.safetensors")  # fmt: skip
        config = {
            "params": self.params.model_dump(mode="json"),
            "classes": self.classes,
            "digest": self.loaded.digest,
            "ids": self.bank.ids,
            "seen": list(self.seen),
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU; the weights it started from are not needed."""
        config = json.loads((folder / "config.json").read_bytes())
        params, classes = Params.model_validate(config["params"]), config["classes"]
        frozen = load_file(folder / BACKBONE_FILE.format(config["digest"][:16]))
        tensors = {**load_file(folder / "model.safetensors"), **frozen}
        architecture = architecture_of(params.backbone)
        with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
            backbone, _ = architecture.build()
            network = build(params, len(classes))
            mlp = build(params, len(classes), graph=False) if params.mlp else None
        for name, part in (("backbone", backbone), ("network", network), ("mlp", mlp)):
            if part is not None:
                part.load_state_dict(_below(f"{name}.", tensors), assign=True)
        backbone = backbone.to(memory_format=torch.channels_last).eval()
        seen = tensors["seen"].numpy() if config["seen"] else ()
        return cls(
            params,
            Loaded(params.backbone, architecture, backbone, config["digest"]),
            network,
            bank_from(_below("bank.", tensors), config["ids"]),
            classes,
            mlp=mlp,
            seen=dict(zip(config["seen"], seen, strict=True)),
        )

    def _attached(self, features_QF: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Hidden values and probabilities of new images.

        The neighbours of the features that were asked for last are kept: a training validates on
        the same images again and again.
        """
        if self._linked is None or self._linked[0] is not features_QF:
            self._linked = features_QF, self.bank.links(features_QF, self.params.k)[0]
        return self.bank.attached(self.network, self._relayed, *self._linked)


@dataclass(frozen=True, slots=True)
class MlpView:
    """The same embeddings without a graph."""

    model: GcnModel
    mlp: KnnGcn

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """C probabilities for each image."""
        return list(without_graph(self.mlp, self.model.embeddings(images)))


@dataclass(frozen=True, slots=True)
class TransductiveView:
    """What the network said of images that were nodes of its graph, their labels hidden."""

    model: GcnModel

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """C probabilities for each image.

        Raises:
            ConfigError: An image was no node: the protocol has no answer for it.
        """
        digests = [array_digest(image) for image in images]
        if any(digest not in self.model.seen for digest in digests):
            raise ConfigError(
                "a transductive network knows the images that were in its graph, but "
                f"{sum(d not in self.model.seen for d in digests)} of {len(images)} were not. "
                "Ask the model itself, which attaches new images to its bank."
            )
        return [self.model.seen[digest] for digest in digests]


@torch.inference_mode()
def without_graph(network: KnnGcn, features_QF: Float32Array) -> Float32Array:
    """Q x C probabilities of a network without a graph."""
    network.eval()
    x = torch.from_numpy(features_QF).to(next(network.parameters()).device)
    return probabilities(network(x, x, edgeless(len(x)).to(x.device)))


def probabilities(logits: Tensor) -> Float32Array:
    """Q x C, on the CPU."""
    values: Float32Array = logits.float().softmax(dim=1).cpu().numpy()
    return values


@torch.inference_mode()
def _embedded(loaded: Loaded, pixels_NSSC: UInt8Array, device: str) -> Float32Array:
    batch = loaded.normalise(torch.from_numpy(pixels_NSSC).to(device))
    values: Float32Array = loaded.network.to(device)(batch).float().cpu().numpy()
    return values


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
