"""The classical baseline: a support vector machine on features of an image.

How the machine is trained and calibrated stands in `hemaml.objectives._kernel_machines`. Its curves
have the class frequencies of the training part, whatever `class_weight` is.

What is saved are plain arrays; scikit-learn is not needed to predict.

Source: Kapadia and Swarnalatha, hybrid CNN and GNN, Table 1, which compares with an SVM and says
nothing of its features or its kernel.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator

from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.nn.backbones import (
    Backbone,
    Loaded,
    architecture_of,
    load_backbone,
    num_parameters,
)
from hemaml.nn.weights import file_digest, state_digest
from hemaml.objectives._kernel_machines import MachineParams, train_machine
from hemaml.objectives.leukemia._features import Extractor, Kind, num_features
from hemaml.ops.kernel_machine import KernelMachine
from hemaml.tasks import leukemia


class Params(MachineParams):
    """What can be fixed or searched."""

    features: Kind = Field(default="classical", description="What an image becomes.")
    size: int = Field(
        default=128, ge=32, le=512, description="Side of the images in pixels; `pixels` takes 32."
    )
    backbone: Backbone = Field(default="resnet18", description="The network of `embeddings`.")
    weights: str = Field(
        default="imagenet",
        description="Of the backbone: none, imagenet, models:/name@alias, runs:/id, or a path.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.features == "embeddings":
            architecture_of(self.backbone).check_size(self.size)
        if self.pca > self.num_features:
            raise ValueError(
                f"`pca` must be at most the {self.num_features} features of {self.features!r}, "
                f"but got {self.pca}. Lower it, or set it to 0 for none."
            )
        return self

    @property
    def num_features(self) -> int:
        """D."""
        embedding = architecture_of(self.backbone).dim
        return num_features(self.features, size=self.size, embedding=embedding)


def size(params: Params) -> int:
    """Values that are known before training, for two classes; the backbone's included.

    Exact for a linear machine. How many images become support vectors of another one shows in
    training; here they are two, the fewest, so that this is a lower bound. `num_trainable` of the
    model is exact.
    """
    features = params.num_features
    kept = params.pca or features
    supports = 1 if params.kernel == "linear" else 2
    machine = 2 * features + params.pca * features + supports * (kept + 1) + 3
    if params.features != "embeddings":
        return machine
    return machine + num_parameters(params.backbone)


class SvmModel:
    """A fitted machine with its features.

    Args:
        params: Its parameters.
        extractor: Makes features of images.
        machine: Classifies these.
        known: Images that will be predicted again and again, and their N x D features.
    """

    def __init__(
        self,
        params: Params,
        extractor: Extractor,
        machine: KernelMachine,
        known: tuple[Sequence[UInt8Array], Float32Array] | None = None,
    ) -> None:
        self.params = params
        self.machine = machine
        self._extractor = extractor
        self._known = known

    @property
    def num_trainable(self) -> int:
        """Numbers that training found: all of the machine's, none of a backbone's."""
        return self.machine.num_values

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """C class probabilities for each image, of any sizes."""
        return list(self.machine.probabilities(self._features(images)))

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """`features`: N x P, as they enter the kernel."""
        return {"features": self.machine.seen(self._features(images))}

    def predict_and_embed(
        self, images: Sequence[UInt8Array]
    ) -> tuple[list[Float32Array], Float32Array]:
        """Probabilities, and `features`, in one pass."""
        features = self._features(images)
        return list(self.machine.probabilities(features)), self.machine.seen(features)

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` into an existing folder."""
        from safetensors.torch import save_file

        arrays = self.machine.arrays().items()
        tensors = {f"svm.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays}
        if self._extractor.loaded is not None:
            state = self._extractor.loaded.network.state_dict().items()
            tensors |= {f"backbone.{k}": v.detach().cpu().contiguous() for k, v in state}
        save_file(tensors, folder / "model.safetensors")
        config = {"params": self.params.model_dump(mode="json"), "gamma": self.machine.gamma}
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU."""
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_bytes())
        params = Params.model_validate(config["params"])
        tensors = load_file(folder / "model.safetensors")
        arrays = {k: v.numpy() for k, v in _below("svm.", tensors).items()}
        machine = KernelMachine.from_arrays(params.kernel, config["gamma"], arrays)
        loaded = None
        if params.features == "embeddings":
            loaded = _restored(params.backbone, _below("backbone.", tensors))
        return cls(params, Extractor(params.features, params.size, "cpu", loaded), machine)

    def _features(self, images: Sequence[UInt8Array]) -> Float32Array:
        if self._known is not None and images is self._known[0]:
            return self._known[1]
        return self._extractor(images)


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restored(name: Backbone, state: dict[str, torch.Tensor]) -> Loaded:
    architecture = architecture_of(name)
    with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
        network, _ = architecture.build()
    network.load_state_dict(state, assign=True)
    network = network.to(memory_format=torch.channels_last).eval()
    return Loaded(name, architecture, network, state_digest(state))


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold and yields once; see the module.

    Raises:
        ConfigError: The weights of a backbone cannot be had, or there are fewer training images
            than components.
        DataError: A class has too few training images, or groups, to be calibrated.
    """
    if context.state is not None:  # all was done before it was stopped
        return
    extractor = _extractor(params, context)
    train, val = (
        extractor.rows(part.images, part.contents(), context.cache)[:]
        for part in (fold.train, fold.val)
    )
    seed = derive_seed(context.seed, "svm")
    machine = train_machine(train, fold.train, params, seed=seed)
    model = SvmModel(params, extractor, machine, (fold.val.images, val))
    metrics = leukemia.score(model, fold.val) | {"support_vectors": float(len(machine.supports))}
    yield Step(0, metrics, model, lambda: {"done": True})


def files(params: Params) -> str:
    """Digest of the file that `weights` names, where embeddings need it."""
    return file_digest(params.weights) if params.features == "embeddings" else ""


def _extractor(params: Params, context: Context) -> Extractor:
    loaded = None
    if params.features == "embeddings":
        seed = derive_seed(context.seed, "weights")
        loaded = load_backbone(params.backbone, params.weights, context.registered, seed=seed)
    return Extractor(params.features, params.size, context.device, loaded)


objective = Objective(
    task=leukemia.task,
    params=Params,
    model=SvmModel,
    fit=fit,
    size=size,
    files=files,
    examples=(
        {"size": 32},
        {"features": "hog", "size": 48, "kernel": "linear", "pca": 4},
        {"features": "pixels", "kernel": "poly", "standardise": False, "class_weight": "none"},
        {"features": "embeddings", "weights": "none", "size": 32, "gamma": 0.01},
    ),
)
