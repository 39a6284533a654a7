"""ResNet-18 on images of cells, from ImageNet or other weights, as far unfrozen as asked for.

Images are scaled to a square and mirrored, rotated and varied in colour while it trains. Where
nothing augments them, what the frozen blocks make of them is computed once and kept.

Source: Kapadia and Swarnalatha, hybrid CNN and GNN, sections III.C and IV. They leave open how far
the network is fine-tuned, the strength of the colour jitter and the number of epochs.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, Frozen, UInt8Array
from hemaml.data.augment_affine import Augmentation
from hemaml.data.class_weights import class_weights
from hemaml.data.pixels import scaled
from hemaml.nn.allocation import keep_freed_memory
from hemaml.nn.backbones import NUM_STAGES, Backbone, Loaded, architecture_of, load_backbone
from hemaml.nn.classifier import ImageClassifier
from hemaml.nn.parameters import count_parameters, count_unbuilt
from hemaml.nn.schedules import one_cycle
from hemaml.nn.training import Patience, Precision, fit_network
from hemaml.nn.weights import file_digest
from hemaml.objectives.leukemia._prepared import EpochBatches, Prepared, inputs, prepared
from hemaml.tasks import leukemia

BINARY = ("healthy", "leukemia")
IMAGES_AT_ONCE = 32
"""In one batch of a prediction."""


class Params(Frozen):
    """What can be fixed or searched."""

    backbone: Backbone = Field(default="resnet18", description="The network below the head.")
    weights: str = Field(
        default="imagenet",
        description="none, imagenet, models:/name@alias, or the path of a file or saved model.",
    )
    size: int = Field(default=128, ge=32, le=1024, description="Side of the images in pixels.")
    unfrozen_blocks: int = Field(
        default=1,
        ge=0,
        le=NUM_STAGES,
        description="Blocks that are trained, from the head down: 1 is layer4, 5 is all.",
    )
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
    dropout: float = Field(default=0, ge=0, lt=1, description="Share of features dropped.")
    class_weights: bool = Field(
        default=True, description="The loss weighs classes inversely to their frequency."
    )
    flip: bool = Field(default=True, description="Half of the images are mirrored.")
    rotation: float = Field(
        default=10, ge=0, le=180, description="Largest random rotation, in degrees."
    )
    jitter: float = Field(
        default=0.2, ge=0, lt=1, description="Largest random change of brightness and contrast."
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
        default="float32", description="What a GPU trains in; the CPU takes float32 always."
    )
    cache_boundary: bool = Field(
        default=True, description="Outputs of frozen blocks are kept where nothing augments."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        architecture_of(self.backbone).check_size(self.size)
        return self

    @property
    def augmentation(self) -> Augmentation:
        """What is drawn for each image of a batch."""
        return Augmentation(
            flip=self.flip,
            rotation=self.rotation,
            brightness=(1 - self.jitter, 1 + self.jitter),
            contrast=self.jitter,
        )


def build(params: Params, num_classes: int) -> ImageClassifier:
    """The network with new weights from torch's global generator."""
    architecture = architecture_of(params.backbone)
    backbone, _ = architecture.build()
    return ImageClassifier(
        backbone,
        dim=architecture.dim,
        num_classes=num_classes,
        unfrozen=params.unfrozen_blocks,
        dropout=params.dropout,
    )


def size(params: Params) -> int:
    """Parameters of the network for two classes; each further one adds its row of the head."""
    return count_unbuilt(lambda: build(params, len(BINARY)))


def files(params: Params) -> str:
    """Digest of the file that `weights` names, where it names one."""
    return file_digest(params.weights)


class Resnet18Model:
    """A fitted classifier.

    Args:
        params: Its parameters.
        network: Its network; predictions run where its weights are.
        classes: Names of the classes, in index order.
        known: Images that will be predicted again and again.
    """

    def __init__(
        self,
        params: Params,
        network: ImageClassifier,
        classes: Sequence[str],
        known: Prepared | None = None,
    ) -> None:
        self.params = params
        self.network = network
        self.classes = tuple(classes)
        self._known = known

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed."""
        return count_parameters(self.network)[1]

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """K class probabilities for each image, of any sizes; decoded a batch at a time."""
        batches = self._batches(images)
        return [row for batch, stage in batches for row in self._probabilities(batch, stage)]

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """`backbone`: N x dim features, as the head sees them."""
        batches = self._batches(images)
        return {"backbone": np.concatenate([self._features(b, stage) for b, stage in batches])}

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json` into an existing folder."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = {"params": self.params.model_dump(mode="json"), "classes": self.classes}
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU; the weights it started from are not needed."""
        config = json.loads((folder / "config.json").read_bytes())
        params = Params.model_validate(config["params"])
        with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
            network = build(params, len(config["classes"]))
        network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        return cls(params, network.to(memory_format=torch.channels_last), config["classes"])

    def _batches(self, images: Sequence[UInt8Array]) -> Iterator[tuple[Tensor, int]]:
        """What the network takes, and the stages behind it."""
        architecture = architecture_of(self.params.backbone)
        device = str(self.network.head.weight.device)
        if self._known is not None and images is self._known.images:
            stage = self._known.stage
            for rows in self._known.rows.batches(IMAGES_AT_ONCE):
                yield inputs(rows, stage, architecture, device), stage
            return
        for first in range(0, len(images), IMAGES_AT_ONCE):
            chunk = images[first : first + IMAGES_AT_ONCE]
            pixels = np.stack([scaled(image, self.params.size) for image in chunk])
            yield inputs(pixels, 0, architecture, device), 0

    @torch.inference_mode()
    def _probabilities(self, batch: Tensor, stage: int) -> Float32Array:
        logits: Tensor = self.network.eval()(batch, stage)
        values: Float32Array = logits.float().softmax(dim=1).cpu().numpy()
        return values

    @torch.inference_mode()
    def _features(self, batch: Tensor, stage: int) -> Float32Array:
        found = self.network.eval().backbone.onward(batch, stage)
        values: Float32Array = found.float().cpu().numpy()
        return values


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold; see the module.

    Raises:
        ConfigError: The weights cannot be had.
        DataError: A class has no training images and classes are weighted.
        Diverged: The loss is not finite.
        OutOfMemory: No memory for a batch.
    """
    keep_freed_memory()
    seed = derive_seed(context.seed, "weights")
    loaded = load_backbone(params.backbone, params.weights, context.registered, seed=seed)
    network = _with_head(loaded, params, len(fold.train.classes), seed)
    how = params.augmentation
    kept = network.num_frozen if params.cache_boundary else 0
    known = prepared(fold.val, loaded, params.size, kept, context)
    stage = 0 if how.changes_anything else kept
    train = prepared(fold.train, loaded, params.size, stage, context)
    network.to(context.device)
    model = Resnet18Model(params, network, fold.train.classes, known)
    draws = {
        name: torch.Generator().manual_seed(derive_seed(context.seed, name))
        for name in ("order", "augmentation")
    }
    num_batches = -(-len(fold.train) // params.batch_size)
    one = params.schedule == "one_cycle"
    yield from fit_network(
        network,
        _optimiser(network, params),
        batches=EpochBatches(
            train,
            fold.train.labels,
            num_batches,
            how,
            loaded.architecture,
            context.device,
            draws,
        ),
        loss=_loss(network, fold.train, params, stage, context.device),
        validate=lambda: leukemia.score(model, fold.val),
        model=model,
        epochs=params.epochs,
        validate_every=params.validate_every,
        schedule=one_cycle(params.epochs * num_batches) if one else None,
        generators=draws,
        patience=Patience(leukemia.task.primary, leukemia.task.direction, params.patience),
        precision=params.precision,
        context=context,
    )


def _with_head(loaded: Loaded, params: Params, num_classes: int, seed: int) -> ImageClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "head"))
        return ImageClassifier(
            loaded.network,
            dim=loaded.dim,
            num_classes=num_classes,
            unfrozen=params.unfrozen_blocks,
            dropout=params.dropout,
        )


def _optimiser(network: ImageClassifier, params: Params) -> torch.optim.Optimizer:
    unfrozen = [p for p in network.backbone.parameters() if p.requires_grad]
    groups = [{"params": list(network.head.parameters()), "lr": params.lr}]
    if unfrozen:
        groups.append({"params": unfrozen, "lr": params.lr * params.lr_backbone})
    return torch.optim.AdamW(groups, weight_decay=params.weight_decay, fused=True)


def _loss(
    network: ImageClassifier, data: Dataset, params: Params, stage: int, device: str
) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
    weights: Tensor | None = None
    if params.class_weights:
        weights = torch.from_numpy(class_weights(data.labels, len(data.classes))).to(device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        x, labels = batch
        smoothing = params.label_smoothing
        return functional.cross_entropy(
            network(x, stage), labels, weights, label_smoothing=smoothing
        )

    return loss


objective = Objective(
    task=leukemia.task,
    params=Params,
    model=Resnet18Model,
    fit=fit,
    size=size,
    mutable=frozenset({"lr", "lr_backbone"}),
    files=files,
    examples=(
        {"weights": "none", "size": 32, "epochs": 2, "batch_size": 4, "dropout": 0.2},
        {
            "weights": "none",
            "size": 32,
            "epochs": 2,
            "batch_size": 8,
            "unfrozen_blocks": 0,
            "flip": False,
            "rotation": 0,
            "jitter": 0,
            "patience": 1,
            "schedule": "constant",
        },
    ),
)
