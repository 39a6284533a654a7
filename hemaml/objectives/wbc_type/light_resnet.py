"""A light residual network on a cell and its mask, to the five types of white blood cells.

The cell is cut out by its mask, what is no cell is painted out, and cytoplasm and nucleus are two
channels beside the colours. With `segmentation: none` the whole image counts as cytoplasm, so it is
the same network on the whole image.

Source: Jiang et al. 2024, the SMGNN paper, Algorithm 1, third part, and section 4.6, who say of the
network only that it is a lightweight ResNet; ours is `hemaml.nn.light_resnet`.

Shape suffixes: N batch; S side; C channels; 5 channels: see `_cells`; K classes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from hemaml.core.dataset import Dataset
from hemaml.core.objective import Context, Objective, Step
from hemaml.core.rows import Rows
from hemaml.core.seeding import derive_seed
from hemaml.core.task import Fold
from hemaml.core.types import Float32Array, UInt8Array
from hemaml.data.augment import NUM_CODES, apply_dihedral
from hemaml.data.augment_affine import Augmentation, augment, draw
from hemaml.data.cells import CELL_TYPES
from hemaml.data.class_weights import class_weights
from hemaml.nn.light_resnet import LightResnet
from hemaml.nn.parameters import count_parameters, count_unbuilt
from hemaml.nn.schedules import one_cycle
from hemaml.nn.training import Precision, fit_network
from hemaml.objectives.wbc_type._cells import CHANNELS, COLOURS, Around, Frame, cell_rows
from hemaml.objectives.wbc_type._segmenters import (
    SegmentationParams,
    Segmenter,
    mask_scores,
    restored,
    segmenter_of,
)
from hemaml.tasks import wbc_type

AT_ONCE = 32
"""Images in one batch of a prediction."""
STORED = "segmenter."
"""What names of tensors of a saved segmenter begin with."""


class Params(SegmentationParams):
    """What can be fixed or searched."""

    size: int = Field(default=64, ge=16, le=512, description="Side of the square in pixels.")
    around: Around = Field(
        default="cell", description="What the square shows: the cell, or the whole image."
    )
    margin: float = Field(
        default=0.1, ge=0, le=2, description="Added to each side of the cell, as a share of it."
    )
    masked: bool = Field(default=True, description="What is no cell is painted out.")
    mask_channels: bool = Field(
        default=True, description="Cytoplasm and nucleus are channels beside the colours."
    )
    width: int = Field(default=16, ge=1, le=256, description="Channels of the first stage.")
    blocks: int = Field(default=1, ge=1, le=18, description="Residual blocks of a stage.")
    dropout: float = Field(default=0, ge=0, lt=1, description="Share of features dropped.")
    lr: float = Field(default=3e-3, gt=0, le=1, description="AdamW's highest learning rate.")
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="Of AdamW, decoupled.")
    batch_size: int = Field(
        default=8, ge=2, le=1024, description="Images in a batch, at most; all are about equal."
    )
    epochs: int = Field(default=100, ge=1, le=10_000, description="Passes over the training part.")
    validate_every: int = Field(default=10, ge=1, le=10_000, description="Epochs per validation.")
    label_smoothing: float = Field(
        default=0, ge=0, lt=1, description="Share of each target spread over all classes."
    )
    class_weights: bool = Field(
        default=True, description="The loss weighs classes inversely to their frequency."
    )
    flip: bool = Field(default=True, description="Half of the cells are mirrored in training.")
    rotation: float = Field(
        default=180, ge=0, le=180, description="Largest random rotation, in degrees."
    )
    scale: float = Field(
        default=0.1, ge=0, lt=1, description="Largest random change of size, as a share."
    )
    jitter: float = Field(
        default=0.1, ge=0, lt=1, description="Largest random change of brightness and contrast."
    )
    turns: bool = Field(
        default=True, description="A prediction is the mean over all flips and quarter turns."
    )
    precision: Precision = Field(
        default="float32",
        description="What training multiplies in; bfloat16 is faster where the hardware has it.",
    )

    @property
    def frame(self) -> Frame:
        """Which square of an image the network sees."""
        return Frame(self.size, self.around, self.margin)

    @property
    def augmentation(self) -> Augmentation:
        """What is drawn for each cell of a batch."""
        return Augmentation(
            flip=self.flip,
            rotation=self.rotation,
            scale=(1 - self.scale, 1 + self.scale),
            brightness=(1 - self.jitter, 1 + self.jitter),
            contrast=self.jitter,
            fill="nearest",  # as `Frame.view`: mirrored, other pieces of the cell would come in
        )


def build(params: Params, num_classes: int) -> LightResnet:
    """The network with new weights from torch's global generator."""
    channels = CHANNELS if params.mask_channels else COLOURS
    return LightResnet(channels, params.width, params.blocks, num_classes, params.dropout)


def size(params: Params) -> int:
    """Parameters of the network for five types, without a segmenter."""
    return count_unbuilt(lambda: build(params, len(CELL_TYPES)))


def network_input(views_NSS5: Tensor, params: Params) -> Tensor:
    """N x C x S x S of about -1..1 from squares of grey levels and masks of 0 to 255."""
    x_N5SS = views_NSS5.float().permute(0, 3, 1, 2)
    colours, masks = x_N5SS[:, :COLOURS] / 127.5 - 1, x_N5SS[:, COLOURS:] / 255
    if params.masked:
        colours = colours * masks.sum(dim=1, keepdim=True).clamp(max=1)
    parts = [colours, masks] if params.mask_channels else [colours]
    return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)


class LightResnetModel:
    """A fitted network with its segmenter; see `hemaml.tasks._classification.Classifier`.

    Args:
        params: Its parameters.
        network: Its network; predictions run where its weights are.
        classes: Names of the classes, in index order.
        segmenter: Makes the masks of new images.
        known: Images that will be predicted again and again, and their squares.
    """

    def __init__(
        self,
        params: Params,
        network: LightResnet,
        classes: Sequence[str],
        segmenter: Segmenter,
        known: tuple[Sequence[UInt8Array], Rows] | None = None,
    ) -> None:
        self.params = params
        self.network = network
        self.classes = tuple(classes)
        self.segmenter = segmenter
        self._known = known

    @property
    def num_trainable(self) -> int:
        """Parameters that training changed; those of a segmenter do not count."""
        return count_parameters(self.network)[1]

    def predict(self, images: Sequence[UInt8Array]) -> list[Float32Array]:
        """K class probabilities for each image, of any sizes.

        Raises:
            DataError: The model has drawn masks, and none of one of the images.
        """
        return [row for views in self._views(images) for row in self._probabilities(views)]

    def embed(self, images: Sequence[UInt8Array]) -> Mapping[str, Float32Array]:
        """`network`: N x 4 `width` features, as the last layer sees them."""
        rows = [self._features(views) for views in self._views(images)]
        return {"network": np.concatenate(rows)}

    def predict_and_embed(
        self, images: Sequence[UInt8Array]
    ) -> tuple[list[Float32Array], Float32Array]:
        """Probabilities, and `network` features, in one pass."""
        found = [(self._probabilities(v), self._features(v)) for v in self._views(images)]
        rows = [row for probabilities, _ in found for row in probabilities]
        return rows, np.concatenate([features for _, features in found])

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json`, the segmenter within, into a folder."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        stored = self.segmenter.stored().items()
        tensors |= {f"{STORED}{k}": torch.from_numpy(v.copy()) for k, v in stored}
        save_file(tensors, folder / "model.safetensors")
        config = {
            "params": self.params.model_dump(mode="json"),
            "classes": self.classes,
            "segmenter": {"kind": self.segmenter.kind, "origin": self.segmenter.origin},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` wrote, onto the CPU."""
        config = json.loads((folder / "config.json").read_bytes())
        params = Params.model_validate(config["params"])
        tensors = load_file(folder / "model.safetensors")
        stored = [name for name in tensors if name.startswith(STORED)]
        arrays = {name.removeprefix(STORED): tensors.pop(name).numpy() for name in stored}
        with torch.device("meta"):  # nothing is drawn for weights that are replaced at once
            network = build(params, len(config["classes"]))
        network.load_state_dict(tensors, assign=True)
        network.to(memory_format=torch.channels_last)
        segmenter = restored(**config["segmenter"], arrays=arrays)
        return cls(params, network, config["classes"], segmenter)

    def _views(self, images: Sequence[UInt8Array]) -> Iterator[Tensor]:
        """Squares of some images at a time."""
        if self._known is not None and images is self._known[0]:
            yield from map(torch.from_numpy, self._known[1].batches(AT_ONCE))
            return
        for first in range(0, len(images), AT_ONCE):
            part = images[first : first + AT_ONCE]
            made = [self.params.frame.view(image, self.segmenter.mask(image)) for image in part]
            yield torch.from_numpy(np.stack(made))

    @torch.inference_mode()
    def _probabilities(self, views: Tensor) -> Float32Array:
        x = self._input(views)
        self.network.eval()
        turned = range(NUM_CODES) if self.params.turns else (0,)
        found = [
            self.network(apply_dihedral(x, torch.full((len(x),), code))).float().softmax(dim=1)
            for code in turned
        ]
        values: Float32Array = torch.stack(found).mean(dim=0).cpu().numpy()
        return values

    @torch.inference_mode()
    def _features(self, views: Tensor) -> Float32Array:
        values: Float32Array = self.network.eval().features(self._input(views)).cpu().numpy()
        return values

    def _input(self, views: Tensor) -> Tensor:
        return network_input(views.to(next(self.network.parameters()).device), self.params)


def fit(params: Params, fold: Fold, context: Context) -> Iterator[Step]:
    """Trains on a fold, with masks from the segmenter; see the module.

    Raises:
        ConfigError: A recorded model is no segmenter.
        DataError: Drawn masks are needed, but the data has none.
        StoreError: There is no such recorded model.
        Diverged: The loss is not finite.
        OutOfMemory: No memory for a batch.
    """
    segmenter = segmenter_of(params, fold, context)
    train, val = (
        cell_rows(segmenter, params.frame, part.images, part.contents(), context.cache)
        for part in (fold.train, fold.val)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(context.seed, "weights"))
        network = build(params, len(fold.train.classes))
    network = network.to(context.device).to(memory_format=torch.channels_last)
    model = LightResnetModel(params, network, fold.train.classes, segmenter, (fold.val.images, val))
    draws = {
        name: torch.Generator().manual_seed(derive_seed(context.seed, name))
        for name in ("order", "augmentation")
    }
    labels = torch.tensor(fold.train.labels)
    num_batches = -(-len(labels) // params.batch_size)
    weights = _class_weights(params, fold.train, context.device)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(labels), generator=draws["order"])
        for chosen in order.tensor_split(num_batches):
            views = torch.from_numpy(train[chosen.numpy()]).to(context.device)
            drawn = draw(len(views), params.augmentation, draws["augmentation"])
            if params.augmentation.changes_anything:
                views = augment(views, drawn)
            yield network_input(views, params), labels[chosen].to(context.device)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        x, truth = batch
        smoothing = params.label_smoothing
        return functional.cross_entropy(network(x), truth, weights, label_smoothing=smoothing)

    masks = mask_scores(segmenter, fold.val, context.cache)
    yield from fit_network(
        network,
        torch.optim.AdamW(
            network.parameters(), lr=params.lr, weight_decay=params.weight_decay, fused=True
        ),
        batches=batches,
        loss=loss,
        validate=lambda: {**wbc_type.task.score(model, fold.val), **masks},
        model=model,
        epochs=params.epochs,
        validate_every=params.validate_every,
        schedule=one_cycle(params.epochs * num_batches),
        generators=draws,
        precision=params.precision,
        context=context,
    )


def _class_weights(params: Params, data: Dataset, device: str) -> Tensor | None:
    if not params.class_weights:
        return None
    found = class_weights(data.labels, len(data.classes), may_lack=True)
    return torch.from_numpy(found).to(device)


objective = Objective(
    task=wbc_type.task,
    params=Params,
    model=LightResnetModel,
    fit=fit,
    size=size,
    scores=lambda model, data: mask_scores(model.segmenter, data),
    mutable=frozenset({"lr"}),
    examples=(  # none with drawn masks: such a model takes no other image
        {
            "segmenters": {"wbc_segmentation.smgnn": {"epochs": 1, "width": 6}},
            "size": 16,
            "width": 4,
            "epochs": 2,
            "validate_every": 1,
            "batch_size": 4,
        },
        {
            "segmentation": "none",
            "size": 16,
            "width": 4,
            "blocks": 2,
            "epochs": 2,
            "validate_every": 1,
            "around": "image",
            "mask_channels": False,
            "masked": False,
            "class_weights": False,
            "dropout": 0.2,
            "flip": False,
            "rotation": 0,
            "scale": 0,
            "jitter": 0,
            "turns": False,
        },
    ),
)
