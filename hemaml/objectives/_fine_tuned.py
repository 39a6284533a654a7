"""An image classifier of which a backbone's upper stages were trained: parameters and model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from hemaml.core.types import Float32Array, Frozen, UInt8Array
from hemaml.data.augment_affine import Augmentation
from hemaml.nn.backbones import NUM_STAGES, Backbone, architecture_of
from hemaml.nn.classifier import ImageClassifier
from hemaml.nn.parameters import count_parameters, count_unbuilt
from hemaml.nn.training import Precision
from hemaml.nn.weights import file_digest
from hemaml.objectives._prepared import Prepared, Views, inputs
from hemaml.tasks._classification import View

VIEWS_AT_ONCE = 32
"""In one batch of a prediction."""


class FineTuning(Frozen):
    """What can be fixed or searched for every image classifier, but for the augmentation."""

    backbone: Backbone = Field(default="resnet18", description="The network below the head.")
    weights: str = Field(
        default="imagenet",
        description="none, imagenet, kimianet (DenseNet-121), models:/name@alias, runs:/id, an "
        "address with #sha256=, or the path of a file or saved model.",
    )
    size: int = Field(default=224, ge=32, le=1024, description="Side of the images in pixels.")
    tiles: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Squares of `size` cut from an image at full resolution, their probabilities "
        "averaged; 0 scales the whole image instead.",
    )
    tile_choice: Literal["random", "grid"] = Field(
        default="random",
        description="Where tiles are cut in training; predictions take an even grid.",
    )
    unfrozen_blocks: int = Field(
        default=1,
        ge=0,
        le=NUM_STAGES,
        description="Blocks that are trained, from the head down: 1 is the last, 5 is all.",
    )
    hidden: int = Field(
        default=0, ge=0, le=4096, description="Units of a hidden layer in the head; 0: linear."
    )
    dropout: float = Field(default=0, ge=0, lt=1, description="Share of features dropped.")
    lr: float = Field(default=1e-3, gt=0, le=1, description="AdamW's highest rate, of the head.")
    lr_backbone: float = Field(
        default=0.1, gt=0, le=10, description="Rate of the unfrozen blocks, as a multiple of lr."
    )
    batch_size: int = Field(
        default=32, ge=2, le=1024, description="Images in a batch, at most; all are about equal."
    )
    weight_decay: float = Field(default=1e-4, ge=0, le=1, description="Of AdamW, decoupled.")
    label_smoothing: float = Field(
        default=0, ge=0, lt=1, description="Share of each target spread over all classes."
    )
    class_weights: bool = Field(
        default=True, description="The loss weighs classes inversely to their frequency."
    )
    epochs: int = Field(default=20, ge=1, le=10_000, description="Passes over the training part.")
    validate_every: int = Field(default=1, ge=1, le=10_000, description="Epochs per validation.")
    patience: int = Field(
        default=0, ge=0, le=10_000, description="Ends after so many validations without a better."
    )
    schedule: Literal["one_cycle", "constant"] = Field(
        default="one_cycle", description="How the rates change from batch to batch."
    )
    precision: Precision = Field(
        default="float32",
        description="What training multiplies in; bfloat16 is faster where the hardware has it.",
    )
    cache_boundary: bool = Field(
        default=True,
        description="Outputs of frozen blocks are kept where nothing augments; they are float32 in "
        "every precision.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        architecture_of(self.backbone).check_size(self.size)
        return self

    @property
    def augmentation(self) -> Augmentation:
        """What is drawn for each view of a batch."""
        return Augmentation()

    @property
    def views(self) -> Views:
        """What the network sees of an image."""
        return Views(self.size, self.tiles)


def build(params: FineTuning, num_classes: int) -> ImageClassifier:
    """The network with new weights from torch's global generator."""
    architecture = architecture_of(params.backbone)
    backbone, _ = architecture.build()
    return ImageClassifier(
        backbone,
        dim=architecture.dim,
        num_classes=num_classes,
        unfrozen=params.unfrozen_blocks,
        dropout=params.dropout,
        hidden=params.hidden,
    )


def size_for(num_classes: int, params: FineTuning) -> int:
    """Parameters of the network for so many classes; each further one adds a row of the head."""
    return _count(num_classes, params.backbone, params.hidden)


@cache
def _count(num_classes: int, backbone: Backbone, hidden: int) -> int:
    """Counted once for all points of a space that differ in other parameters."""
    params = FineTuning(backbone=backbone, hidden=hidden)
    return count_unbuilt(lambda: build(params, num_classes))


def files(params: FineTuning) -> str:
    """Digest of the file that `weights` names, where it names one."""
    return file_digest(params.weights)


class FineTunedModel:
    """A fitted classifier; an `hemaml.tasks._classification.Explainable`.

    Args:
        params: Its parameters.
        network: Its network; predictions run where its weights are.
        classes: Names of the classes, in index order.
        origin: What its training began from, in words.
        known: Images that will be predicted again and again.
    """

    def __init__(
        self,
        params: FineTuning,
        network: ImageClassifier,
        classes: Sequence[str],
        origin: str,
        known: Prepared | None = None,
    ) -> None:
        self.params = params
        self.network = network
        self.classes = tuple(classes)
        self.origin = origin
        self._known = known

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed."""
        return count_parameters(self.network)[1]

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """K class probabilities for each image, of any sizes: the mean over its views."""
        views = self._batches(images)
        return [row for x, stage in views for row in self._mean(self._probabilities(x, stage))]

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """`backbone`: N x dim features, as the head sees them, the mean over an image's views."""
        views = self._batches(images)
        features = [self._mean(self._features(x, stage)) for x, stage in views]
        return {"backbone": np.concatenate(features)}

    def predict_and_embed(
        self, images: Sequence[UInt8Array]
    ) -> tuple[list[Float32Array], Float32Array]:
        """Probabilities, and `backbone` features, in one pass."""
        rows, features = [], []
        for x, stage in self._batches(images):
            found, seen = self._judged(x, stage)
            rows += list(self._mean(found))
            features.append(self._mean(seen))
        return rows, np.concatenate(features)

    def views(self, image: UInt8Array) -> list[View]:
        """What the network sees of an image."""
        return self.params.views.cut(image)

    def normalise(self, batch_NSSC: Tensor) -> Tensor:
        """N x S x S x 3 grey levels 0 to 255 to what the network takes."""
        return architecture_of(self.params.backbone).normalise(batch_NSSC)

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` into an existing folder."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        params = self.params.model_dump(mode="json", include=set(FineTuning.model_fields))
        config = {"params": params, "classes": self.classes, "origin": self.origin}
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU; the weights it started from are not needed."""
        config = json.loads((folder / "config.json").read_bytes())
        params = FineTuning.model_validate(config["params"])
        with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
            network = build(params, len(config["classes"]))
        network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        network.to(memory_format=torch.channels_last)
        return cls(params, network, config["classes"], config["origin"])

    def _batches(self, images: Sequence[UInt8Array]) -> Iterator[tuple[Tensor, int]]:
        """What the network takes, all views of some images at a time, and the stages behind it."""
        architecture = architecture_of(self.params.backbone)
        device = str(next(self.network.parameters()).device)
        views = self.params.views
        at_once = max(1, VIEWS_AT_ONCE // views.num)
        if self._known is not None and images is self._known.images:
            for rows in self._known.batches(at_once):
                yield inputs(rows, self._known.stage, architecture, device), self._known.stage
            return
        for first in range(0, len(images), at_once):
            cut = [v.pixels for image in images[first : first + at_once] for v in views.cut(image)]
            yield inputs(np.stack(cut), 0, architecture, device), 0

    def _mean(self, rows: Float32Array) -> Float32Array:
        """Over the views of each image."""
        mean: Float32Array = rows.reshape(-1, self.params.views.num, rows.shape[1]).mean(axis=1)
        return mean

    @torch.inference_mode()
    def _probabilities(self, x: Tensor, stage: int) -> Float32Array:
        logits: Tensor = self.network.eval()(x, stage)
        values: Float32Array = logits.float().softmax(dim=1).cpu().numpy()
        return values

    @torch.inference_mode()
    def _judged(self, x: Tensor, stage: int) -> tuple[Float32Array, Float32Array]:
        """Probabilities and features of views, of one pass."""
        network = self.network.eval()
        features = network.backbone.onward(x, stage)
        shares = network.head(network.dropout(features)).float().softmax(dim=1)
        return shares.cpu().numpy(), features.float().cpu().numpy()

    @torch.inference_mode()
    def _features(self, x: Tensor, stage: int) -> Float32Array:
        found = self.network.eval().backbone.onward(x, stage)
        values: Float32Array = found.float().cpu().numpy()
        return values
